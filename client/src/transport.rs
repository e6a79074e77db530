//! How QUIC is set up: one socket, and what each kind of connection may hold and how long it may be silent.
//!
//! Both the library and the brokers take their settings from here, because half of them only work when both ends have
//! them: a path carries packets larger than 1472 bytes only if the *receiver* says that it takes them.
//!
//! | profile | one stream unread | a connection unread | unacknowledged | streams the other may open |
//! |---|---|---|---|---|
//! | [`Profile::Client`] | 4 MiB | the sum of its streams | 64 MiB | none |
//! | [`Profile::Broker`] | 16 MiB | 48 MiB | 64 MiB | 64 |
//! | [`Profile::Peer`] | 16 MiB | 64 MiB | 64 MiB | none |
//!
//! One stream's window is always smaller than its connection's: a tail that nobody reads and a megabyte of appends that
//! wait for room must not stop the control stream beside them.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    AckFrequencyConfig, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt, congestion::CubicConfig,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Largest UDP payload that path discovery may try, if nothing else is configured. Bytes.
///
/// Ten segments of one offloaded send have to fit one UDP send of 65,507 bytes: above 6,550 they are lost silently.
pub const MTU: u16 = 6500;
/// Smallest and largest value for it. Bytes.
pub const MTU_RANGE: std::ops::RangeInclusive<u16> = 1200..=6550;
/// Silence after which a connection is given up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a connection is asked whether it is still there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// What the kernel is asked to buffer for a socket, each way. It may give less. Bytes.
pub const SOCKET_BUFFER_BYTES: usize = 8 << 20;

const CLIENT_STREAM_BYTES: u32 = 4 << 20;
const BROKER_STREAM_BYTES: u32 = 16 << 20;
const BROKER_CONNECTION_BYTES: u32 = 48 << 20;
const PEER_CONNECTION_BYTES: u32 = 64 << 20;
const SEND_BYTES: u64 = 64 << 20;
const BROKER_STREAMS: u32 = 64;

/// Packets that a new connection may have on their way: of the largest size, or else one probe for the packet size would
/// fill the window, and hold up everything else, even the word that the connection is closed. Count.
const INITIAL_WINDOW_PACKETS: u64 = 10;
/// Round trip that is assumed before the first measurement: a lost first packet is sent again after three of them.
const INITIAL_RTT: Duration = Duration::from_millis(20);

/// Packets that are acknowledged by one packet that says nothing else. Two is QUIC's own habit, made for the open
/// internet; where requests and answers take turns it nearly doubles the packets. Count.
const PACKETS_PER_ACK: u32 = 10;

/// Which end of which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A client's end of a connection to a broker.
    Client,
    /// A broker's end of a connection that somebody opened to it.
    Broker,
    /// A broker's end of a connection that it opened to a peer.
    Peer,
}

/// A bound UDP socket with buffers for bursts. Not connected, not blocking.
///
/// # Errors
///
/// The address is in use, or is none of this machine's.
pub fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // A kernel that gives less is no reason not to run: packets that do not fit are sent again.
    let _less_is_fine = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _less_is_fine = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Settings of a socket's endpoint: it takes packets of up to `mtu` bytes. Values outside [`MTU_RANGE`] are moved to
/// its ends.
#[must_use]
pub fn endpoint_config(mtu: u16) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(within(mtu)).expect("every value of MTU_RANGE is allowed");
    config
}

/// Settings of a connection. Its packets grow up to `mtu` bytes where the path takes them.
#[must_use]
pub fn config(profile: Profile, mtu: u16) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(within(mtu));
    let (stream, connection, streams) = match profile {
        Profile::Client => (CLIENT_STREAM_BYTES, VarInt::MAX, 0),
        Profile::Broker => (BROKER_STREAM_BYTES, BROKER_CONNECTION_BYTES.into(), BROKER_STREAMS),
        Profile::Peer => (BROKER_STREAM_BYTES, PEER_CONNECTION_BYTES.into(), 0),
    };
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_PACKETS * u64::from(within(mtu)));
    let idle = IDLE_TIMEOUT.try_into().expect("five seconds fit QUIC's milliseconds");
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(PACKETS_PER_ACK.into());
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(stream.into())
        .receive_window(connection)
        .send_window(SEND_BYTES)
        .send_fairness(false)
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .ack_frequency_config(Some(acks))
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(congestion))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(config)
}

fn within(mtu: u16) -> u16 {
    mtu.clamp(*MTU_RANGE.start(), *MTU_RANGE.end())
}
