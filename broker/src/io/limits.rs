//! Every bound of the driver, in one place: how long it waits, how much it holds.
//!
//! A wait that has no bound here is bounded by the connection it belongs to, and that by QUIC's idle timeout. What
//! bounds a single message is in [`sequor_client::protocol::limits`].

use std::time::Duration;

/// From the first packet of a connection to the end of its hello.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For one attempt to reach a peer. Short: QUIC's own pauses between tries double, a new attempt begins anew.
pub(super) const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that has just connected has answered a try to connect to it by then, or the try was begun before it was there.
pub(super) const PEER_ANSWERS_WITHIN: Duration = Duration::from_millis(100);
/// Pause after the first failed attempt to reach a peer; doubled after each further one.
pub(super) const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between two attempts to reach a peer.
pub(super) const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// For answers that are ready to get into a client's stream: a client that does not read them loses its stream.
pub(super) const ANSWER_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For answers of the core that nobody else bounds: to a subscription, and to a client that asks no more.
pub(super) const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(30);
/// For a refused hello to reach the one who said it.
pub(super) const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// At a stop: for the other end of each connection to hear of it.
pub(super) const FAREWELL_TIMEOUT: Duration = Duration::from_millis(500);
/// At a stop: for the disk to take what is on its way.
pub(super) const LAST_SYNC_TIMEOUT: Duration = Duration::from_secs(10);
/// At the very end: for a thread to finish what it is at, and how often it is looked at meanwhile.
pub(super) const LAST_ORDER_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const LAST_ORDER_POLL: Duration = Duration::from_millis(1);

/// Handshakes under way at once. More are refused. Count.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// Handshakes under way above which a caller first has to prove its address. Count.
pub(super) const HANDSHAKES_BEFORE_RETRY: usize = 32;
/// Connections whose first packet waits for this process to look at it. Count.
pub(super) const INCOMING_MAX: usize = 1024;
/// Bytes that all waiting first packets may hold.
pub(super) const INCOMING_BYTES_MAX: u64 = 4 << 20;

/// Requests that one stream of a client may have unanswered, in bytes. At the limit the stream is not read.
pub(super) const STREAM_IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Requests that one stream of a client may have unanswered. Count.
pub(super) const STREAM_IN_FLIGHT_REQUESTS_MAX: usize = 16_384;
/// Requests that one control stream may have unanswered. Count.
pub(super) const CONTROL_IN_FLIGHT_REQUESTS_MAX: usize = 256;
/// Requests of all clients that are unanswered, in bytes. At the limit no request stream is read. Below the core's own
/// limit, so that a full broker makes its clients wait; only many streams that each begin a large request at the same
/// moment can still meet the core's limit, which answers `Busy`.
pub(super) const TOTAL_IN_FLIGHT_BYTES_MAX: usize = 48 << 20;
/// What a request counts for beside its bytes: its place in queues and tables. Bytes.
pub(super) const REQUEST_OVERHEAD_BYTES: usize = 256;
/// About how much of the log goes into one frame of a subscription. Bytes.
pub(super) const DELIVERY_BYTES: usize = 256 << 10;

/// Messages that wait for a peer, in bytes and per lane. At the limit they are dropped: raft sends again.
pub(super) const PEER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Streams that a peer may have open at once: the hello's and one per lane. Count.
pub(super) const PEER_STREAMS_MAX: u32 = 4;
/// What a peer may have on its way to us unread, over all its streams. Bytes.
pub(super) const PEER_RECEIVE_WINDOW_BYTES: u32 = 64 << 20;
