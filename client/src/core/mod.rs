//! What a client decides, without doing it: no socket, no task, no clock, no randomness but from its seed.
//!
//! Events go in, work comes out, and somebody else does it: the driver of this library with tokio and quinn, or the
//! simulator with virtual time and a network that loses, delays and reorders. Both run this very code.
//!
//! ```text
//!   commands         open_producer, open_session, append, subscribe, lookup, list, resolve, retire, end, status
//!   handle_*         connected, disconnected, response, stream_closed, timeout    ─►  Session
//!   poll_transmit    Connect, Disconnect, Request, Subscribe, Unsubscribe         ◄─
//!   poll_event       Opened, Acked, Known, Failed, Unknown, …                      ◄─
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `session.rs` | one client: composes the rest, gives every attempt its id |
//! | `dispatch.rs` | what may be sent now |
//! | `answers.rs` | what each answer means |
//! | `event.rs` | what comes out |
//! | `routing.rs` | which broker to talk to, and when to try another |
//! | `attempts.rs` | the attempts of one request, and what is known of their outcomes |
//! | `opening.rs` | how a producer's name is taken |
//! | `producer.rs` | numbers, the window of batches in flight, what became of each |
//! | `keeping.rs` | keeping a session alive |
//! | `in_flight.rs` | a batch on its way, and how it is cut |
//! | `sealing.rs` | giving numbers up, so that "failed" is certain |
//! | `consumer.rs` | a position in the log: neither gap nor repeat |
//! | `time.rs` | a moment |
//!
//! Every call ends by its deadline in one of three ways: done, definitely not (and why), or unknown.

mod answers;
mod attempts;
mod consumer;
mod dispatch;
mod event;
mod in_flight;
mod keeping;
mod opening;
mod producer;
mod routing;
mod sealing;
mod session;
mod time;

pub use event::{
    AppendRefused, Call, Event, Failure, Numbers, OpenFailure, Placed, ProducerKey, Style,
    SubscriptionFailure, SubscriptionKey, Transmit,
};
pub use session::{Config, Session};
pub use time::Time;
