//! A broker's UDP socket, and between it and QUIC the one place where datagrams are lost.
//!
//! What is lost on the way out was sent, as far as the broker knows. What is lost on the way in becomes a datagram
//! without content, which nothing follows from. So QUIC meets what it meets in a bad network, and nothing else.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use sequor_client::protocol::BrokerId;

use super::network::Network;

/// See the file's header.
#[derive(Debug)]
pub(super) struct LossySocket {
    pub(super) broker: BrokerId,
    pub(super) network: Arc<Network>,
    pub(super) inner: Arc<dyn AsyncUdpSocket>,
}

impl AsyncUdpSocket for LossySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.network.lets_out(self.broker, transmit.destination) {
            self.inner.try_send(transmit)
        } else {
            Ok(())
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(context, buffers, metas);
        if let Poll::Ready(Ok(count)) = received {
            let arrived = metas.iter_mut().take(count);
            for lost in arrived.filter(|meta| !self.network.lets_in(self.broker, meta.addr)) {
                lost.len = 0;
            }
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
