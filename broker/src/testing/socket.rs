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

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::UdpSocket};

    use quinn::{Runtime as _, TokioRuntime};

    use super::*;

    const ONE: BrokerId = BrokerId(1);
    const TWO: BrokerId = BrokerId(2);

    /// The lengths of what arrives when somebody sends.
    async fn receive(socket: &LossySocket, sender: &UdpSocket) -> Vec<usize> {
        sender.send_to(b"datagram", socket.local_addr().unwrap()).unwrap();
        let mut memory = [0; 64];
        let mut metas = [RecvMeta::default()];
        let buffers = &mut [IoSliceMut::new(&mut memory)];
        let count = poll_fn(|context| socket.poll_recv(context, buffers, &mut metas)).await.unwrap();
        metas[..count].iter().map(|meta| meta.len).collect()
    }

    #[tokio::test]
    async fn what_was_under_way_when_a_partition_began_is_lost_too() {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (own, peer, client) = (bind(), bind(), bind());
        let places = [(ONE, own.local_addr().unwrap()), (TWO, peer.local_addr().unwrap())];
        let network = Arc::new(Network::new(&places));
        own.set_nonblocking(true).unwrap();
        let inner = TokioRuntime.wrap_udp_socket(own).unwrap();
        let socket = LossySocket { broker: ONE, network: Arc::clone(&network), inner };

        assert_eq!(receive(&socket, &peer).await, [8]);
        network.set_island(&[ONE]);
        assert_eq!(receive(&socket, &peer).await, [0]);
        assert_eq!(receive(&socket, &client).await, [8], "clients are on no side");
    }
}
