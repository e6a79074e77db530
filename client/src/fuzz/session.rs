//! A client that is given answers which no broker should give, at moments at which none should come.
//!
//! ```text
//! input    op …          one byte; bits 3 to 7 say which, or how much
//!   0  the next answer: a frame with its length in front (u16), sealed, for the request that was sent so many before
//!   1  time passes               2  a batch is appended        3  a question is asked
//!   4  a connection is made      5  one is lost                6  a stream ends        7  a subscription begins
//! ```
//!
//! Nothing is asked of what the client makes of it but that it does not panic, and that it does not spin: it never wants
//! to be woken for a moment that has passed, and has a bounded number of things to say about each event.

use std::time::Duration;

use bytes::Bytes;

use super::frames::{decode, seal};
use crate::{
    core::{Config, Event, ProducerKey, Session, Style, Time, Transmit},
    protocol::{
        BrokerId, ClusterId, Codec, Epoch, Incarnation, Instance, Lineage, List, Member, Offset, ProducerId,
        Request, RequestId, Resolve, Response, Retire, Sequence, ServerHello, VERSION, batch::BatchBuilder,
    },
};

const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
const OPS_MAX: usize = 256;
/// What a client may want to do, and have to tell, after one event. Far above what any of them gives rise to.
const WORK_MAX: usize = 10_000;
const DEADLINE: Duration = Duration::from_secs(5);

struct World {
    session: Session,
    now: Time,
    producers: Vec<ProducerKey>,
    /// What was sent: to whom, under which id, and who opens, if anybody does.
    sent: Vec<(BrokerId, RequestId, Option<Instance>)>,
    wanted: Vec<BrokerId>,
}

/// See the module's header.
pub fn session(data: &[u8]) {
    let members = (1..=2).map(member).collect();
    let now = Time(1);
    let mut world = World {
        session: Session::new(Config::new(CLUSTER, members), 1, now),
        now,
        producers: Vec::new(),
        sent: Vec::new(),
        wanted: Vec::new(),
    };
    let deadline = now.after(DEADLINE);
    world.producers.push(world.session.open_producer(now, "name", Style::default(), deadline));
    world.producers.push(world.session.open_session(
        now,
        Duration::from_secs(1),
        Style::default().acks,
        deadline,
    ));
    world.drain();
    let mut rest = data;
    for _ in 0..OPS_MAX {
        let Some((&op, after)) = rest.split_first() else { break };
        rest = world.step(op, after);
        world.drain();
    }
}

fn member(id: u64) -> Member {
    Member { id: BrokerId(id), address: format!("broker-{id}:7400") }
}

impl World {
    /// Lets one thing happen; what is left of the input.
    fn step<'a>(&mut self, op: u8, rest: &'a [u8]) -> &'a [u8] {
        let how = op >> 3;
        let deadline = self.now.after(DEADLINE);
        let producer = self.producers[usize::from(how) % self.producers.len()];
        match op & 7 {
            0 => return self.answer(how, rest),
            1 => {
                self.now = self.now.after(Duration::from_millis(1 << (how % 14)));
                self.session.handle_timeout(self.now);
                self.drain();
                assert!(self.session.next_timeout() > self.now, "woken for what has passed");
            }
            2 => {
                let mut builder = BatchBuilder::new();
                if how & 2 != 0 {
                    builder = builder.packed(Codec::Lz4);
                }
                for at in 0..=how {
                    builder.push_value(None, &[at / 8; 9], at.into()).expect("a few small records fit");
                }
                let _full_or_not = self.session.append(self.now, producer, builder, deadline);
            }
            3 => self.ask(how, deadline),
            4 => {
                let broker = self.wanted.pop().unwrap_or(BrokerId(u64::from(how % 3)));
                self.session.handle_connected(self.now, broker, &hello(broker, how));
            }
            5 => self.session.handle_disconnected(self.now, BrokerId(u64::from(how % 3))),
            6 => {
                if let Some((broker, id, _)) = self.recent(how) {
                    self.session.handle_stream_closed(self.now, broker, id);
                }
            }
            _ => drop(self.session.subscribe(self.now, Offset(how.into()))),
        }
        rest
    }

    fn ask(&mut self, how: u8, deadline: Time) {
        let (session, now, id) = (&mut self.session, self.now, ProducerId(1));
        match how % 6 {
            0 => session.lookup(now, "name", deadline),
            1 => session.end(now, deadline),
            2 => session.list(now, List { after: None, limit: 3 }, deadline),
            3 => {
                let resolve =
                    Resolve { producer: id, epoch: Epoch(1), sequence: Sequence(0), seal: how > 15 };
                session.resolve(now, resolve, deadline)
            }
            4 => session.retire(now, Retire { producer: id, epoch: Epoch(1) }, deadline),
            _ => session.status(now, BrokerId(1), deadline),
        };
    }

    fn recent(&self, how: u8) -> Option<(BrokerId, RequestId, Option<Instance>)> {
        self.sent.iter().rev().nth(usize::from(how)).copied()
    }

    /// Gives the next answer of the input to one of the latest requests.
    fn answer<'a>(&mut self, how: u8, rest: &'a [u8]) -> &'a [u8] {
        let Some((length, rest)) = rest.split_first_chunk::<2>() else { return &[] };
        let (frame, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        let mut frame = frame.to_vec();
        seal(&mut frame);
        let (frames, _) = decode(&[Bytes::from(frame)]);
        let Some((broker, id, instance)) = self.recent(how) else { return rest };
        for frame in frames {
            let Ok((_, mut response)) = frame.response() else { continue };
            if let (Response::Opened(producer) | Response::Found(producer), Some(instance)) =
                (&mut response, instance)
            {
                producer.instance = instance;
            }
            self.session.handle_response(self.now, broker, id, response);
        }
        rest
    }

    /// Takes everything that the session has to say.
    fn drain(&mut self) {
        for work in 0.. {
            assert!(work < WORK_MAX, "there is no end to what it wants");
            match self.session.poll_transmit() {
                None => break,
                Some(Transmit::Connect { broker, .. }) => self.wanted.push(broker),
                Some(Transmit::Disconnect { .. } | Transmit::Unsubscribe { .. }) => {}
                Some(Transmit::Subscribe { broker, id, .. }) => self.sent.push((broker, id, None)),
                Some(Transmit::Request { broker, id, request, .. }) => {
                    let instance = match request {
                        Request::Open(open) => Some(open.instance),
                        Request::OpenSession(open) => Some(open.instance),
                        _ => None,
                    };
                    self.sent.push((broker, id, instance));
                }
            }
        }
        for work in 0.. {
            assert!(work < WORK_MAX, "there is no end to what it tells");
            match self.session.poll_event() {
                None => break,
                Some(Event::Records { batches, .. }) => {
                    for placed in batches {
                        assert!(placed.skip < placed.batch.count() && placed.batch.check_records().is_ok());
                    }
                }
                Some(_) => {}
            }
        }
    }
}

fn hello(broker: BrokerId, how: u8) -> ServerHello {
    ServerHello {
        version: VERSION,
        cluster: CLUSTER,
        lineage: Lineage([how >> 4; 16]),
        broker,
        incarnation: Incarnation([1; 16]),
        level: 1,
        capabilities: 0,
        batch_bytes_max: 983_040,
        in_flight_batches_max: 4096,
        leader: Some(broker),
        members: (1..=u64::from(how % 4)).map(member).collect(),
    }
}
