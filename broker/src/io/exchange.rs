//! One stream of a client between its reader and its writer: what was asked and is not answered, and what is answered
//! and not written.
//!
//! A request counts against two limits, its stream's and the broker's, from the moment it is read until its answer is
//! in the stream's send buffer. At either limit the stream is simply not read, QUIC's flow control carries that to the
//! client, and nothing has to be refused. So a client that asks and does not read its answers stops itself.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt, mem,
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use quinn::{SendStream, WriteError};
use sequor_client::protocol::{Refusal, RequestId, Response, frame};
use thiserror::Error;
use tokio::{sync::Notify, time::timeout};

use super::limits::{ANSWER_WRITE_TIMEOUT, REQUEST_OVERHEAD_BYTES, STREAM_IN_FLIGHT_BYTES_MAX};

/// Answers are put side by side in pieces of memory of this size, while they fit. Bytes.
const READY_BYTES: usize = 8 << 10;

/// Bytes of unanswered requests, of all streams together.
///
/// Invariant: `held` is the sum of what the living exchanges hold.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bytes: usize,
    held_bytes: Cell<usize>,
    room: Notify,
}

/// Unanswered requests and unwritten answers of one stream.
///
/// Invariants:
/// - `held_bytes` is the sum of `open` and of what the answers in `ready` will release;
/// - a request id is in `open` once, from its question to its answer.
pub(super) struct Exchange {
    budget: Rc<Budget>,
    requests_max: usize,
    open: RefCell<HashMap<RequestId, usize>>,
    ready: RefCell<Ready>,
    held_bytes: Cell<usize>,
    filled: Notify,
    freed: Notify,
}

/// Answers that wait for the writer.
#[derive(Default)]
struct Ready {
    /// Their frames, one behind the other.
    frames: BytesMut,
    /// What their requests held.
    released_bytes: usize,
}

/// Why answers can no longer be written.
#[derive(Debug, Error)]
pub(super) enum AnswerError {
    /// The client reset the stream, or the connection is gone.
    #[error("the client no longer takes answers")]
    Write(#[from] WriteError),
    /// The client does not read.
    #[error("the client read no answer for {} seconds", ANSWER_WRITE_TIMEOUT.as_secs())]
    TooSlow,
}

impl Budget {
    pub(super) fn new(limit_bytes: usize) -> Rc<Self> {
        Rc::new(Self { limit_bytes, held_bytes: Cell::new(0), room: Notify::new() })
    }

    fn take(&self, bytes: usize) {
        self.held_bytes.set(self.held_bytes.get() + bytes);
    }

    fn put_back(&self, bytes: usize) {
        self.held_bytes.set(self.held_bytes.get() - bytes);
        self.room.notify_waiters();
    }
}

impl Exchange {
    /// An exchange with at most `requests_max` unanswered requests.
    pub(super) fn new(budget: Rc<Budget>, requests_max: usize) -> Rc<Self> {
        Rc::new(Self {
            budget,
            requests_max,
            open: RefCell::default(),
            ready: RefCell::default(),
            held_bytes: Cell::new(0),
            filled: Notify::new(),
            freed: Notify::new(),
        })
    }

    /// Waits until one more request may be read. The last one may take the sum over a limit, by its own size at most.
    pub(super) async fn room(&self) {
        loop {
            let own = self.held_bytes.get() < STREAM_IN_FLIGHT_BYTES_MAX
                && self.open.borrow().len() < self.requests_max;
            if !own {
                self.freed.notified().await;
            } else if self.budget.held_bytes.get() >= self.budget.limit_bytes {
                self.budget.room.notified().await;
            } else {
                return;
            }
        }
    }

    /// Notes a request of `bytes`. False if its id is not answered yet: two answers could not be told apart.
    #[must_use]
    pub(super) fn ask(&self, id: RequestId, bytes: usize) -> bool {
        let bytes = bytes + REQUEST_OVERHEAD_BYTES;
        let fresh = self.open.borrow_mut().insert(id, bytes).is_none();
        self.held_bytes.set(self.held_bytes.get() + bytes);
        self.budget.take(bytes);
        fresh
    }

    /// Queues an answer to a request; the writer takes all that are queued at once. The request is open until the last
    /// one.
    pub(super) fn answer(&self, id: RequestId, response: &Response) {
        let held = match response.is_final() {
            true => self.open.borrow_mut().remove(&id),
            false => self.open.borrow().get(&id).map(|_| 0),
        };
        let Some(bytes) = held else { return };
        self.put(id, response, bytes);
    }

    /// Queues what nobody asked for. A client that does not read it is given up like one that does not read its answers.
    pub(super) fn say(&self, response: &Response) {
        self.put(RequestId::NONE, response, 0);
    }

    fn put(&self, id: RequestId, response: &Response, released_bytes: usize) {
        let mut ready = self.ready.borrow_mut();
        let put = frame::put_response(&mut ready.frames, id, response).or_else(|refusal| {
            tracing::error!(%id, %refusal, "an answer does not fit its frame");
            frame::put_response(&mut ready.frames, id, &Response::Refused(Refusal::Unavailable))
        });
        put.expect("a refusal without fields fits any frame");
        ready.released_bytes += released_bytes;
        self.filled.notify_one();
    }

    /// Writes answers as they come, until that fails.
    ///
    /// # Errors
    ///
    /// Always in the end; see [`AnswerError`].
    pub(super) async fn write(&self, send: &mut SendStream) -> Result<std::convert::Infallible, AnswerError> {
        loop {
            let (frames, released_bytes) = self.ready.borrow_mut().take();
            if frames.is_empty() {
                self.filled.notified().await;
                continue;
            }
            let written = timeout(ANSWER_WRITE_TIMEOUT, send.write_chunk(frames)).await;
            self.release(released_bytes);
            written.map_err(|_| AnswerError::TooSlow)??;
        }
    }

    /// Waits until everything that was asked is answered and written.
    pub(super) async fn answered(&self) {
        while self.held_bytes.get() > 0 {
            self.freed.notified().await;
        }
    }

    /// Whether every answer there is has been written.
    pub(super) fn is_written(&self) -> bool {
        self.open.borrow().values().sum::<usize>() == self.held_bytes.get()
    }

    fn release(&self, bytes: usize) {
        self.held_bytes.set(self.held_bytes.get() - bytes);
        self.budget.put_back(bytes);
        self.freed.notify_one();
    }
}

impl Ready {
    /// All of them, and what their requests held. What is left of the memory is for the next ones.
    fn take(&mut self) -> (Bytes, usize) {
        let frames = self.frames.split().freeze();
        if self.frames.capacity() == 0 {
            self.frames.reserve(READY_BYTES);
        }
        (frames, mem::take(&mut self.released_bytes))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.budget.put_back(self.held_bytes.get());
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("open", &self.open.borrow().len())
            .field("held_bytes", &self.held_bytes.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    const REFUSED: Response = Response::Refused(Refusal::Unavailable);

    fn has_room(exchange: &Exchange) -> bool {
        pin!(exchange.room()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_stream_at_its_own_limit_waits_and_others_go_on() {
        let budget = Budget::new(usize::MAX);
        let (full, other) = (Exchange::new(Rc::clone(&budget), 100), Exchange::new(Rc::clone(&budget), 2));
        assert!(full.ask(RequestId(1), STREAM_IN_FLIGHT_BYTES_MAX));
        assert!(!has_room(&full), "its bytes are used up");
        assert!(other.ask(RequestId(1), 1) && has_room(&other));
        assert!(other.ask(RequestId(2), 1) && !has_room(&other), "its count is used up");
        other.answer(RequestId(1), &REFUSED);
        assert!(has_room(&other));
    }

    #[test]
    fn the_total_is_given_back_when_a_stream_ends() {
        let budget = Budget::new(1000);
        let (one, two) = (Exchange::new(Rc::clone(&budget), 100), Exchange::new(Rc::clone(&budget), 100));
        assert!(one.ask(RequestId(1), 1000));
        assert!(!has_room(&two), "all streams share one total");
        one.answer(RequestId(1), &REFUSED);
        assert!(!has_room(&two), "an answer that is not written still counts");
        drop(one);
        assert!(has_room(&two));
        assert_eq!(budget.held_bytes.get(), 0);
    }

    #[test]
    fn an_id_that_is_not_answered_yet_cannot_be_asked_again() {
        let exchange = Exchange::new(Budget::new(usize::MAX), 100);
        assert!(exchange.ask(RequestId(1), 0));
        assert!(!exchange.ask(RequestId(1), 0));
    }
}
