//! Every bound of the protocol, in one place, with its unit as the last word of its name.
//!
//! A length that arrives from the network is compared with its bound *before* anything is allocated for it.
//! The relations between the bounds are asserted at compile time at the end of the file.

use super::placed::PLACE_BYTES;

/// Largest Raft entry, and so the most that one pass of a leader's event loop can replicate. Bytes.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Largest batch a client may send: an entry, less room for its envelope. Bytes.
pub const BATCH_BYTES_MAX: usize = ENTRY_BYTES_MAX - (64 << 10);
/// Largest control part (the part that is not a batch) of one frame. Bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Largest run of batches in one frame of a subscription: one entry's worth, in their places. Bytes.
pub const DELIVERY_BYTES_MAX: usize = ENTRY_BYTES_MAX + (64 << 10);
/// Most records in one batch. Count.
pub const BATCH_RECORDS_MAX: usize = 65_536;
/// Longest key of a record. Bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Most headers on one record. Count.
pub const HEADERS_MAX: usize = 64;
/// Longest name of a header. Bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 255;
/// Longest name of a producer. Bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest name of a client's software in its hello. Bytes of UTF-8.
pub const SOFTWARE_BYTES_MAX: usize = 255;
/// Most batches that one producer may have in flight, and the batches a broker remembers for it. Count.
pub const IN_FLIGHT_BATCHES_MAX: usize = 4096;
/// Newest remembered batches that the answer to an `open` or a lookup shows. Count.
pub const SHOWN_BATCHES_MAX: usize = 16;
/// Sealed intervals that do not touch, for one producer. Count.
pub const SEALS_MAX: usize = 65_536;
/// Numbers that one seal may give up: as many as a full window can hold. Count.
pub const SEAL_REACH_MAX: u64 = (IN_FLIGHT_BATCHES_MAX * BATCH_RECORDS_MAX) as u64;
/// Sealed intervals shown in the answer to an `open` or a lookup. Count.
pub const SHOWN_SEALS_MAX: usize = 256;
/// Shortest time that a session may ask to live without being kept alive. Milliseconds.
pub const SESSION_TTL_MS_MIN: u32 = 500;
/// Longest time that a session may ask to live without being kept alive. Milliseconds.
pub const SESSION_TTL_MS_MAX: u32 = 3_600_000;
/// Producers in one page of a list. Count.
pub const LIST_MAX: usize = 512;
/// Names in one page of a list. Bytes.
pub const LIST_NAMES_BYTES_MAX: usize = 32 << 10;
/// Fencing tokens that one request may carry. Count.
pub const TOKENS_MAX: usize = 64;
/// Longest time a request may ask a broker to work on it. Milliseconds.
pub const DEADLINE_MS_MAX: u32 = 600_000;
/// Members that a hello may list. Count.
pub const MEMBERS_MAX: usize = 64;

const _: () = assert!(BATCH_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(BATCH_RECORDS_MAX < BATCH_BYTES_MAX, "the smallest record takes a byte");
const _: () = assert!(KEY_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(PLACE_BYTES + BATCH_BYTES_MAX < DELIVERY_BYTES_MAX, "any batch can be delivered");
const _: () = assert!(LIST_NAMES_BYTES_MAX + LIST_MAX * 48 < BODY_BYTES_MAX, "a page of a list fits a frame");
const _: () =
    assert!(IN_FLIGHT_BATCHES_MAX * 15 < BODY_BYTES_MAX, "the places of a batch cut otherwise fit a frame");
const _: () = assert!(SHOWN_BATCHES_MAX <= IN_FLIGHT_BATCHES_MAX);
