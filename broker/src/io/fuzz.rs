//! Entry points for fuzzing of what only this module can see. See `crate::fuzz`.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quinn::ReadError;
use sequor_client::protocol::{BrokerId, Incarnation};
use sequor_wal::{Disk, sections::File};

use super::{
    peer_stream::{Messages, Source, framed},
    pins::Pins,
};
use crate::core::{PEER_HELLO_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, PeerHello, PeerMessage};

struct Pieces(VecDeque<Bytes>);

impl Source for Pieces {
    async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        Ok(self.0.pop_front())
    }
}

/// Nothing here ever waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a list of pieces never makes anybody wait"),
    }
}

/// What a stream carried, and whether it ended where it may; or the words of what is wrong with it.
type Carried = (Vec<Bytes>, Result<(), String>);

/// A peer's stream, as that of a hello and as a lane. The input's first byte says in which pieces it arrives.
pub fn peer_stream(data: &[u8]) {
    let Some((&step, stream)) = data.split_first() else { return };
    for limit in [PEER_HELLO_BYTES_MAX, PEER_MESSAGE_BYTES_MAX] {
        let whole = now(read(stream, stream.len().max(1), limit));
        assert_eq!(
            now(read(stream, usize::from(step) + 1, limit)),
            whole,
            "it makes no difference how the bytes arrive"
        );
        let (messages, end) = whole;
        let mut rest = stream.get(1..).unwrap_or_default();
        for message in messages {
            let bytes;
            (bytes, rest) = rest.split_at(4 + message.len());
            assert_eq!(framed(vec![message.clone()]).concat(), bytes);
            judge_hello(&message);
            let _either = PeerMessage::decode(message);
        }
        assert_eq!(end.is_ok(), rest.is_empty());
    }
}

async fn read(stream: &[u8], step: usize, limit: usize) -> Carried {
    let pieces = stream.chunks(step).map(Bytes::copy_from_slice).collect();
    let mut reader = Messages::new(Pieces(pieces), limit);
    let mut messages = Vec::new();
    let end = async {
        reader.first_byte().await?;
        while let Some(message) = reader.next().await? {
            messages.push(message);
        }
        Ok(())
    };
    let end: Result<(), super::peer_stream::PeerStreamError> = end.await;
    (messages, end.map_err(|error| error.to_string()))
}

fn judge_hello(bytes: &[u8]) {
    if let Ok(hello) = PeerHello::decode(bytes) {
        let again = hello.encode();
        assert!(again.len() <= bytes.len(), "the usual form is the shortest");
        assert_eq!(PeerHello::decode(&again), Ok(hello));
    }
}

/// The pins of the peers, in a file of that name.
pub(crate) fn pins(disk: Arc<dyn Disk>) {
    let mut pins = match Pins::load(Arc::clone(&disk)) {
        Ok(pins) => pins,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let met = File::load(&*disk, "pins").expect("it was just read").unwrap_or_default().sections;
    for section in &met {
        let (peer, incarnation) = section.content.split_at(8);
        let peer = BrokerId(u64::from_le_bytes(peer.try_into().expect("eight bytes")));
        let known = Incarnation(incarnation.try_into().expect("a pin has 24 bytes"));
        pins.check(peer, known).expect("a peer comes back under the incarnation it is known by");
        pins.check(peer, Incarnation(known.0.map(|byte| !byte))).expect_err("and under no other");
    }
    if met.len() < 1000 {
        let (peer, known) = (BrokerId(u64::MAX), Incarnation([5; 16]));
        if pins.check(peer, known).is_ok() {
            let mut again = Pins::load(disk).expect("it was just written");
            again.check(peer, known).expect("a pin is on the disk before it counts");
        }
    }
}
