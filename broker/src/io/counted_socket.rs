//! A broker's UDP socket, and what passes it, counted.
//!
//! Packets are the bill of a log that is replicated in small pieces, so a broker says how many it sends. The counts are
//! kept where a system call is made, which costs a thousand times what counting does; only the broker's own thread
//! counts, and it reads them once a pass.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use crate::core::Traffic;

/// See the file's header.
#[derive(Debug)]
pub(super) struct CountedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    sent: Passed,
    received: Passed,
}

/// What passed in one direction.
#[derive(Debug, Default)]
struct Passed {
    calls: AtomicU64,
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl Passed {
    /// One call moved so many datagrams.
    fn count(&self, datagrams: usize, bytes: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.datagrams.fetch_add(datagrams as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl CountedSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { inner, sent: Passed::default(), received: Passed::default() }
    }

    /// What has passed until now.
    pub(super) fn traffic(&self) -> Traffic {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            sends: read(&self.sent.calls),
            datagrams_sent: read(&self.sent.datagrams),
            bytes_sent: read(&self.sent.bytes),
            receives: read(&self.received.calls),
            datagrams_received: read(&self.received.datagrams),
            bytes_received: read(&self.received.bytes),
        }
    }
}

/// Into how many datagrams bytes are cut that are handed to the kernel, or were taken from it, at once.
fn datagrams(bytes: usize, segment: usize) -> usize {
    // An empty one is a datagram, too.
    if segment == 0 { 1 } else { bytes.div_ceil(segment).max(1) }
}

impl AsyncUdpSocket for CountedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        let bytes = transmit.contents.len();
        self.sent.count(datagrams(bytes, transmit.segment_size.unwrap_or(bytes)), bytes);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(context, buffers, metas);
        if let Poll::Ready(Ok(count)) = received {
            let metas = &metas[..count];
            let arrived = metas.iter().map(|meta| datagrams(meta.len, meta.stride)).sum();
            self.received.count(arrived, metas.iter().map(|meta| meta.len).sum());
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::UdpSocket};

    use quinn::{Runtime as _, TokioRuntime};

    use super::*;

    #[tokio::test]
    async fn what_passes_is_counted_by_calls_datagrams_and_bytes() {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            Arc::new(CountedSocket::new(TokioRuntime.wrap_udp_socket(socket).unwrap()))
        };
        let (one, two) = (bind(), bind());
        let destination = two.local_addr().unwrap();
        let contents = &[7; 10];
        let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
        let mut poller = Arc::clone(&one).create_io_poller();
        poll_fn(|context| poller.as_mut().poll_writable(context)).await.unwrap();
        one.try_send(&transmit).unwrap();
        let sent = one.traffic();
        assert_eq!((sent.sends, sent.datagrams_sent, sent.bytes_sent, sent.receives), (1, 1, 10, 0));
        let (mut memory, mut metas) = ([0; 64], [RecvMeta::default()]);
        let buffers = &mut [IoSliceMut::new(&mut memory)];
        poll_fn(|context| two.poll_recv(context, buffers, &mut metas)).await.unwrap();
        let received = two.traffic();
        assert_eq!((received.receives, received.datagrams_received, received.bytes_received), (1, 1, 10));
        assert_eq!(received.sends, 0);
    }

    #[test]
    fn what_is_handed_over_at_once_is_as_many_datagrams_as_it_is_cut_into() {
        assert_eq!(datagrams(0, 0), 1);
        assert_eq!(datagrams(1200, 1200), 1);
        assert_eq!(datagrams(1201, 1200), 2);
        assert_eq!(datagrams(5, 0), 1);
    }
}
