//! What a client does when it hears who was elected, step by step: a session whose brokers are the test itself.

#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

mod greeting;

use std::time::Duration;

use greeting::{CLUSTER, LINEAGE, hello};
use sequor_client::core::{Config, Event, Session, Time, Transmit};
use sequor_client::protocol::{BrokerId, End, Leads, Member, Offset, Request, RequestId, Response, Revision};

const A: BrokerId = BrokerId(1);
const B: BrokerId = BrokerId(2);
const C: BrokerId = BrokerId(3);
/// Longer than a client waits before it connects to all brokers; less than it waits for an answer.
const A_WHILE: Duration = Duration::from_millis(200);

/// Three brokers, played by hand.
struct Played {
    session: Session,
    now: Time,
}

/// What a session wants, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Wants {
    Connect(BrokerId),
    Disconnect(BrokerId),
    /// To ask this broker where the log ends.
    Ask(BrokerId),
}

impl Played {
    /// A session that is at work: it is connected to everybody, and A leads.
    fn at_work() -> Self {
        let member = |id| Member { id: BrokerId(id), address: format!("broker-{id}:7400") };
        let session = Session::new(Config::new(CLUSTER, (1..=3).map(member).collect()), 1, Time(0));
        let mut played = Self { session, now: Time(1) };
        played.ask();
        loop {
            let (wants, ids) = played.wants();
            if let [id] = ids[..] {
                played.answer(A, id);
                break;
            }
            assert!(!wants.is_empty(), "it has to find A");
        }
        played.now = played.now.after(A_WHILE);
        played.session.handle_timeout(played.now);
        let connected = played.wants().0;
        assert!(connected.len() <= 2 && played.wants().0.is_empty(), "{connected:?}");
        played
    }

    fn ask(&mut self) {
        self.session.end(self.now, self.now.after(Duration::from_secs(60)));
    }

    fn answer(&mut self, broker: BrokerId, id: RequestId) {
        let end = End { first: Offset(0), end: Offset(5), revision: Revision(0), lineage: LINEAGE };
        self.session.handle_response(self.now, broker, id, Response::End(end));
        let last = std::iter::from_fn(|| self.session.poll_event()).last();
        assert!(matches!(last, Some(Event::EndIs { .. })), "{last:?}");
    }

    fn says(&mut self, by: BrokerId, term: u64, leader: BrokerId) {
        self.session.handle_response(self.now, by, RequestId(0), Response::Leads(Leads { term, leader }));
    }

    /// All that it wants now, and the ids of what it asks. Who is dialled answers at once, that A leads.
    fn wants(&mut self) -> (Vec<Wants>, Vec<RequestId>) {
        let (mut wants, mut ids) = (Vec::new(), Vec::new());
        while let Some(transmit) = self.session.poll_transmit() {
            wants.push(match transmit {
                Transmit::Connect { broker, .. } => {
                    self.session.handle_connected(self.now, broker, &hello(broker, Some(A), Vec::new()));
                    Wants::Connect(broker)
                }
                Transmit::Disconnect { broker } => Wants::Disconnect(broker),
                Transmit::Request { broker, id, request: Request::End, .. } => {
                    ids.push(id);
                    Wants::Ask(broker)
                }
                other => panic!("it only asks for the end: {other:?}"),
            });
        }
        (wants, ids)
    }
}

#[test]
fn a_leader_that_died_and_is_elected_again_is_asked_over_a_new_connection() {
    let mut played = Played::at_work();
    played.ask();
    assert_eq!(played.wants().0, [Wants::Ask(A)]);
    // A dies. The others elect B, and C says so.
    played.says(C, 2, B);
    let (wants, ids) = played.wants();
    assert_eq!(wants, [Wants::Ask(B)]);
    played.answer(B, ids[0]);
    // A was started again. B dies in the middle of a request, and C says that A was elected.
    played.ask();
    assert_eq!(played.wants().0, [Wants::Ask(B)]);
    played.says(C, 3, A);
    let (wants, ids) = played.wants();
    assert_eq!(wants, [Wants::Disconnect(A), Wants::Connect(A), Wants::Ask(A)]);
    played.answer(A, ids[0]);
}

#[test]
fn a_leader_that_said_itself_that_another_one_leads_keeps_its_connection() {
    let mut played = Played::at_work();
    played.says(A, 2, B);
    played.ask();
    let (wants, ids) = played.wants();
    assert_eq!(wants, [Wants::Ask(B)]);
    played.answer(B, ids[0]);
    played.says(B, 3, A);
    played.ask();
    let (wants, ids) = played.wants();
    assert_eq!(wants, [Wants::Ask(A)]);
    played.answer(A, ids[0]);
}
