//! A socket that takes and sends datagrams by the train.
//!
//! QUIC hands the kernel several datagrams of one length at once (only the last may be shorter), and the kernel carries such
//! a train in one piece where both ends know how. A relay that took each apart and put a system call to each datagram would
//! be most of what is measured through it, so it takes trains whole, and sends them on whole.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use sequor_client::transport;

/// Most that one call of the kernel sends over UDP. Bytes.
const SEND_BYTES_MAX: usize = 65_507;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Datagrams of one length that came in one piece. The last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Train {
    /// All together. Bytes.
    pub(super) bytes: usize,
    /// Each of them. Bytes, at least one.
    pub(super) stride: usize,
    pub(super) from: SocketAddr,
}

/// How many datagrams so many bytes are. An empty one is one, too.
pub(super) fn datagrams(bytes: usize, stride: usize) -> u64 {
    bytes.div_ceil(stride).max(1) as u64
}

impl Socket {
    /// A socket with large buffers; on port 0, on a free one.
    pub(super) fn bind(listen: SocketAddr) -> io::Result<Self> {
        let socket = transport::socket(listen)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, state })
    }

    /// Where it is.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether the kernel sends and receives several at once.
    #[cfg(test)]
    pub(super) fn takes_trains(&self) -> bool {
        self.state.max_gso_segments() > 1 && self.state.gro_segments() > 1
    }

    /// What came next.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing more, or that of something that was sent before.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Train> {
        let mut metas = [RecvMeta::default()];
        self.state.recv((&self.socket).into(), &mut [IoSliceMut::new(buffer)], &mut metas)?;
        let [RecvMeta { addr: from, len: bytes, stride, .. }] = metas;
        Ok(Train { bytes, stride: stride.max(1), from })
    }

    /// Sends a train on; how many of its datagrams have left.
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8], stride: usize) -> u64 {
        if bytes.is_empty() {
            return self.send_at_once(to, bytes, stride);
        }
        let at_once = self.state.max_gso_segments().min(SEND_BYTES_MAX / stride).max(1);
        bytes.chunks(at_once * stride).map(|piece| self.send_piece(to, piece, stride)).sum()
    }

    fn send_piece(&self, to: SocketAddr, bytes: &[u8], stride: usize) -> u64 {
        let sent = self.send_at_once(to, bytes, stride);
        // A device that takes no trains says so at the first one.
        if sent > 0 || bytes.len() <= stride || self.state.max_gso_segments() > 1 {
            return sent;
        }
        bytes.chunks(stride).map(|datagram| self.send_at_once(to, datagram, stride)).sum()
    }

    /// All of them, or none: full, or nobody is there.
    fn send_at_once(&self, to: SocketAddr, contents: &[u8], stride: usize) -> u64 {
        let segment_size = (contents.len() > stride).then_some(stride);
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
        let sent = self.state.try_send((&self.socket).into(), &transmit);
        sent.map_or(0, |()| datagrams(contents.len(), stride))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
