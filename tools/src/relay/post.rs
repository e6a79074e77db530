//! The thread that receives and sends.
//!
//! It sleeps until a socket has something or something is due, whichever comes first, to a few microseconds: the kernel
//! is asked not to round its timers. What passes a good link is sent on in the same turn and waits in no queue.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    num::NonZeroU64,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::set_current_timer_slack,
};

use sequor_client::protocol::BrokerId;

use super::{
    Conditions, End, Shared, Traffic,
    delay_line::DelayLine,
    link::{Link, Loss, Route},
    socket::{Socket, Train, datagrams},
    visitors::Visitors,
};

/// Most that is received at once: the largest train. Bytes.
const TRAIN_BYTES_MAX: usize = 65_535;
/// Datagrams that are taken from one socket before the others have their turn. Count.
const BURST_MAX: u64 = 64;
/// How far the kernel may round a timer. Nanoseconds.
pub(super) const TIMER_SLACK_NS: u64 = 1_000;
/// Longest sleep: then it is looked whether the relay is to end.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// Pause between two looks for silent clients.
const TIDY_PAUSE: Duration = Duration::from_secs(1);

/// Where a broker is known, and where it is.
#[derive(Debug)]
pub(super) struct Front {
    id: BrokerId,
    broker: SocketAddr,
    socket: Socket,
}

impl Front {
    /// A front at an address; on port 0, on a free one.
    pub(super) fn bind(id: BrokerId, listen: SocketAddr, broker: SocketAddr) -> io::Result<Self> {
        Ok(Self { id, broker, socket: Socket::bind(listen)? })
    }

    /// Where it is.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.address()
    }
}

/// A socket of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// A front, by its place.
    Front(usize),
    /// A client's way, by its key.
    Visitor(u64),
}

/// Something on its way: a train, or a part of one.
#[derive(Debug)]
struct Parcel<B = Box<[u8]>> {
    route: Route,
    /// Through which socket it leaves.
    door: Door,
    to: SocketAddr,
    bytes: B,
    /// What each of its datagrams has, but for the last. Bytes.
    stride: usize,
}

impl Parcel<&[u8]> {
    /// The same with bytes of its own.
    fn kept(&self) -> Parcel {
        let Self { route, door, to, bytes, stride } = *self;
        Parcel { route, door, to, bytes: bytes.into(), stride }
    }
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Post {
    fronts: Vec<Front>,
    /// Which front is that of the broker at an address.
    brokers: HashMap<SocketAddr, usize>,
    visitors: Visitors,
    links: BTreeMap<Route, Link>,
    line: DelayLine<Parcel>,
    shared: Arc<Shared>,
    traffic: Traffic,
    seed: u64,
    tidy_at: Instant,
}

impl Post {
    pub(super) fn new(fronts: Vec<Front>, shared: Arc<Shared>, seed: u64) -> Self {
        Self {
            brokers: (0..).zip(&fronts).map(|(at, front)| (front.broker, at)).collect(),
            fronts,
            visitors: Visitors::default(),
            links: BTreeMap::new(),
            line: DelayLine::new(),
            shared,
            traffic: Traffic::default(),
            seed,
            tidy_at: Instant::now(),
        }
    }

    /// Carries until the relay is dropped.
    pub(super) fn run(mut self) {
        // A kernel that does not know it rounds to fifty microseconds.
        let _coarser = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
        let mut buffer = vec![0; TRAIN_BYTES_MAX];
        while !self.shared.stop.load(Ordering::Relaxed) {
            for door in self.ready() {
                self.empty(door, &mut buffer);
            }
            let now = Instant::now();
            while let Some(parcel) = self.line.pop(now) {
                self.deliver(&parcel);
            }
            if now >= self.tidy_at {
                self.tidy_at = now + TIDY_PAUSE;
                self.visitors.forget_silent(now);
            }
            *self.shared.traffic.lock().unwrap_or_else(PoisonError::into_inner) = self.traffic;
        }
    }

    /// Sleeps until something has come or is due; the sockets that have something.
    fn ready(&self) -> Vec<Door> {
        let fronts = (0..self.fronts.len()).map(Door::Front);
        let doors: Vec<_> = fronts.chain(self.visitors.keys().map(Door::Visitor)).collect();
        let sockets = doors.iter().filter_map(|door| self.socket(*door));
        let mut fds: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let sleep = self.line.wait(Instant::now()).map_or(SLEEP_MAX, |wait| wait.min(SLEEP_MAX));
        let sleep = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
        // Interrupted, it looks again.
        let _count = poll(&mut fds, Some(&sleep));
        let ready = doors.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        ready.map(|(door, _)| *door).collect()
    }

    fn socket(&self, door: Door) -> Option<&Socket> {
        match door {
            Door::Front(at) => Some(&self.fronts[at].socket),
            Door::Visitor(key) => self.visitors.get(key).map(|visitor| &visitor.socket),
        }
    }

    /// Takes what a socket has.
    fn empty(&mut self, door: Door, buffer: &mut [u8]) {
        let mut taken = 0;
        while taken < BURST_MAX {
            // An error is that of something that was sent before, or there is nothing more.
            let Some(Ok(train)) = self.socket(door).map(|socket| socket.receive(buffer)) else { return };
            let Train { bytes, stride, from } = train;
            let count = datagrams(bytes, stride);
            taken += count;
            self.traffic.received += count;
            let now = Instant::now();
            if let Some((route, door, to)) = self.address(now, door, from) {
                self.carry(now, route, door, to, &buffer[..bytes], stride);
            }
        }
    }

    /// Where something goes that came in by a door.
    fn address(&mut self, now: Instant, door: Door, from: SocketAddr) -> Option<(Route, Door, SocketAddr)> {
        match door {
            Door::Front(at) => {
                let (to, broker) = (End::Broker(self.fronts[at].id), self.fronts[at].broker);
                if let Some(peer) = self.brokers.get(&from) {
                    let from = End::Broker(self.fronts[*peer].id);
                    return Some((Route { from, to }, Door::Front(*peer), broker));
                }
                // Without a socket for it the client is not heard, and tries again.
                let key = self.visitors.of(now, at, from).ok()?;
                Some((Route { from: End::Clients, to }, Door::Visitor(key), broker))
            }
            Door::Visitor(key) => {
                self.visitors.heard(key, now);
                let visitor = self.visitors.get(key)?;
                let front = &self.fronts[visitor.front];
                let route = Route { from: End::Broker(front.id), to: End::Clients };
                (from == front.broker).then_some((route, Door::Front(visitor.front), visitor.client))
            }
        }
    }

    /// Puts a train on its way, in one piece if nothing can happen to a part of it.
    fn carry(&mut self, now: Instant, route: Route, door: Door, to: SocketAddr, bytes: &[u8], stride: usize) {
        let conditions: Conditions = self.shared.conditions().get(&route).copied().unwrap_or_default();
        let piece = if conditions.are_equal_for_all() { bytes.len() } else { stride };
        if bytes.is_empty() {
            return self.accept(now, &conditions, &Parcel { route, door, to, bytes, stride });
        }
        for bytes in bytes.chunks(piece) {
            self.accept(now, &conditions, &Parcel { route, door, to, bytes, stride });
        }
    }

    /// Puts something on its way, or sends it on at once.
    fn accept(&mut self, now: Instant, conditions: &Conditions, parcel: &Parcel<&[u8]>) {
        let Parcel { route, bytes, stride, .. } = *parcel;
        let link = self.links.entry(route).or_insert_with(|| Link::new(self.seed, route));
        let count = datagrams(bytes.len(), stride);
        let arrival = match link.accept(now, bytes.len(), conditions) {
            Ok(arrival) => arrival,
            Err(Loss::Lost) => return self.traffic.lost += count,
            Err(Loss::Overflowed) => return self.traffic.overflowed += count,
        };
        self.traffic.reordered += u64::from(arrival.reordered);
        self.traffic.doubled += u64::from(arrival.again.is_some());
        for due in [Some(arrival.due), arrival.again].into_iter().flatten() {
            if due <= now {
                self.send(parcel);
            } else {
                self.links.entry(route).and_modify(|link| link.holds(bytes.len()));
                self.line.push(due, parcel.kept());
            }
        }
    }

    fn deliver(&mut self, parcel: &Parcel) {
        self.links.entry(parcel.route).and_modify(|link| link.released(parcel.bytes.len()));
        self.send(parcel);
    }

    fn send(&mut self, parcel: &Parcel<impl AsRef<[u8]>>) {
        let Parcel { door, to, stride, .. } = *parcel;
        let bytes = parcel.bytes.as_ref();
        // The way of a client that was forgotten leads nowhere.
        let sent = self.socket(door).map_or(0, |socket| socket.send(to, bytes, stride));
        self.traffic.forwarded += sent;
        // Full, or nobody is there: lost, as in any network.
        self.traffic.overflowed += datagrams(bytes.len(), stride) - sent;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::{super::Relay, *};

    /// Two brokers and a client, and a relay between them.
    struct Town {
        brokers: [UdpSocket; 2],
        client: UdpSocket,
        relay: Relay,
    }

    impl Town {
        fn new() -> Self {
            let bind = || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                socket
            };
            let (brokers, client) = ([bind(), bind()], bind());
            let places = [brokers[0].local_addr().unwrap(), brokers[1].local_addr().unwrap()];
            Self { brokers, client, relay: Relay::start(&places, 1).unwrap() }
        }

        fn front(&self, at: usize) -> SocketAddr {
            self.relay.fronts()[at]
        }
    }

    const ONE: End = End::Broker(BrokerId(1));
    const TWO: End = End::Broker(BrokerId(2));

    /// What arrives next, and from where.
    fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; TRAIN_BYTES_MAX];
        let (length, from) = receive_into(socket, &mut buffer);
        (buffer[..length].to_vec(), from)
    }

    fn receive_into(socket: &UdpSocket, buffer: &mut [u8]) -> (usize, SocketAddr) {
        loop {
            match socket.recv_from(buffer) {
                // A signal ends a read that has a timeout, even under SA_RESTART.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received.unwrap(),
            }
        }
    }

    #[test]
    fn brokers_know_each_other_by_their_fronts() {
        let town = Town::new();
        town.brokers[0].send_to(b"one to two", town.front(1)).unwrap();
        assert_eq!(receive(&town.brokers[1]), (b"one to two".to_vec(), town.front(0)));
        town.brokers[1].send_to(b"and back", town.front(0)).unwrap();
        assert_eq!(receive(&town.brokers[0]), (b"and back".to_vec(), town.front(1)));
    }

    #[test]
    fn a_client_is_answered_by_the_front_that_it_asked() {
        let town = Town::new();
        town.client.send_to(b"ask", town.front(1)).unwrap();
        let (asked, way) = receive(&town.brokers[1]);
        assert_eq!(asked, b"ask");
        assert_ne!(way, town.client.local_addr().unwrap());
        town.brokers[1].send_to(b"answer", way).unwrap();
        assert_eq!(receive(&town.client), (b"answer".to_vec(), town.front(1)));
        town.client.send_to(b"more", town.front(1)).unwrap();
        assert_eq!(receive(&town.brokers[1]).1, way, "the same client has the same way");
    }

    #[test]
    fn a_cut_has_one_direction() {
        let town = Town::new();
        town.relay.set(ONE, TWO, Conditions::CUT);
        town.brokers[0].send_to(b"lost", town.front(1)).unwrap();
        while town.relay.traffic().lost == 0 {
            std::thread::yield_now();
        }
        town.brokers[1].send_to(b"heard", town.front(0)).unwrap();
        assert_eq!(receive(&town.brokers[0]).0, b"heard");
        town.relay.heal();
        town.brokers[0].send_to(b"healed", town.front(1)).unwrap();
        assert_eq!(receive(&town.brokers[1]).0, b"healed");
    }

    #[test]
    fn what_is_delayed_arrives_no_earlier_and_in_order() {
        let town = Town::new();
        let delay = Duration::from_micros(2_500);
        town.relay.set_all(Conditions { delay, jitter: delay, ..Conditions::default() });
        let mut took = Vec::new();
        for round in 0..50_u8 {
            let start = Instant::now();
            for part in 0..3 {
                town.brokers[0].send_to(&[round, part], town.front(1)).unwrap();
            }
            for part in 0..3 {
                assert_eq!(receive(&town.brokers[1]).0, [round, part]);
            }
            took.push(start.elapsed());
        }
        took.sort_unstable();
        assert!(took[0] >= delay, "{took:?}");
        // Not all of them can have been held up by a busy machine.
        assert!(took[0] < delay * 10, "{took:?}");
    }

    /// What the relay adds to a delay, or to none: `cargo test --release -p sequor added -- --nocapture` prints it.
    #[test]
    fn what_is_added_is_told() {
        for delay in [Duration::ZERO, Duration::from_micros(500), Duration::from_millis(5)] {
            let town = Town::new();
            town.relay.set_all(Conditions { delay, ..Conditions::default() });
            let measure = |_| {
                let start = Instant::now();
                town.brokers[0].send_to(b"ping", town.front(1)).unwrap();
                receive(&town.brokers[1]);
                start.elapsed()
            };
            let mut added: Vec<_> =
                (0..200).map(measure).map(|took| took.checked_sub(delay).unwrap()).collect();
            added.sort_unstable();
            println!("{delay:?}: {:?} more at the median, {:?} in 99 of 100 cases", added[100], added[198]);
        }
    }

    /// What it carries: `cargo test --release -p sequor carried -- --nocapture` prints it.
    #[test]
    fn what_is_carried_is_told() {
        const DATAGRAM_BYTES: usize = 6500;
        const BURST: usize = 16;
        const BURSTS: usize = 600;
        // The sockets of this test have the kernel's own buffers, of 200 KiB.
        const AHEAD: usize = 1;
        for delay in [Duration::ZERO, Duration::from_micros(100)] {
            let town = Town::new();
            town.relay.set_all(Conditions { delay, ..Conditions::default() });
            let datagram = [7; DATAGRAM_BYTES];
            let mut buffer = [0; DATAGRAM_BYTES + 1];
            let send = || {
                (0..BURST).for_each(|_| _ = town.brokers[0].send_to(&datagram, town.front(1)).unwrap());
            };
            let start = Instant::now();
            // Some bursts are on their way, as a connection would have them, and never more than the sockets hold.
            (0..AHEAD).for_each(|_| send());
            for _ in AHEAD..BURSTS {
                send();
                for _ in 0..BURST {
                    assert_eq!(receive_into(&town.brokers[1], &mut buffer).0, DATAGRAM_BYTES);
                }
            }
            let bytes = DATAGRAM_BYTES * BURST * (BURSTS - AHEAD);
            println!("{delay:?}: {:.0} MB/s", bytes as f64 / start.elapsed().as_secs_f64() / 1e6);
        }
    }

    /// What has passed since, as soon as it is so many datagrams.
    fn passed(town: &Town, before: Traffic, datagrams: u64) -> Traffic {
        loop {
            let now = town.relay.traffic();
            let passed = Traffic {
                received: now.received - before.received,
                forwarded: now.forwarded - before.forwarded,
                lost: now.lost - before.lost,
                doubled: now.doubled - before.doubled,
                reordered: now.reordered - before.reordered,
                overflowed: now.overflowed - before.overflowed,
            };
            if passed.forwarded + passed.lost + passed.overflowed >= datagrams {
                return passed;
            }
            std::thread::yield_now();
        }
    }

    fn train_sender() -> Socket {
        Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_train_arrives_in_order_wherever_it_is_cut() {
        let town = Town::new();
        let slow = Conditions { delay: Duration::from_millis(2), ..Conditions::default() };
        // More than the kernel sends at once, and the largest datagram there is.
        let (many, largest) = (vec![7; 100 * 100 - 1], vec![7; 65_507]);
        let trains = [(&b"one  two  three"[..], 5), (b"one  two  four", 5), (&many, 100), (&largest, 65_507)];
        for conditions in [Conditions::default(), slow] {
            town.relay.set_all(conditions);
            for (bytes, stride) in trains {
                let (count, before) = (datagrams(bytes.len(), stride), town.relay.traffic());
                assert_eq!(train_sender().send(town.front(1), bytes, stride), count);
                for datagram in bytes.chunks(stride) {
                    assert!(
                        receive(&town.brokers[1]).0 == datagram,
                        "{conditions:?}: {count} of {stride} bytes"
                    );
                }
                let expected = Traffic { received: count, forwarded: count, ..Traffic::default() };
                assert_eq!(passed(&town, before, count), expected);
            }
        }
    }

    #[test]
    fn a_train_is_carried_in_one_piece() {
        let anybody = train_sender();
        if anybody.takes_trains() {
            let broker = train_sender();
            let relay = Relay::start(&[broker.address().unwrap()], 1).unwrap();
            anybody.send(relay.fronts()[0], b"one  two  three", 5);
            let mut buffer = [0; 64];
            let start = Instant::now();
            let train = loop {
                match broker.receive(&mut buffer) {
                    Ok(train) => break train,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                assert!(start.elapsed() < Duration::from_secs(10), "nothing arrives");
                std::thread::yield_now();
            };
            assert_eq!((train.bytes, train.stride), (15, 5));
        }
    }

    #[test]
    fn each_datagram_of_a_train_has_its_own_fate() {
        let town = Town::new();
        let train = vec![7; 64];
        let fate = |conditions| {
            let before = town.relay.traffic();
            town.relay.set_all(conditions);
            train_sender().send(town.front(1), &train, 1);
            passed(&town, before, if conditions.doubled > 0 { 128 } else { 64 })
        };
        let doubled = fate(Conditions { doubled: 1000, ..Conditions::default() });
        assert_eq!((doubled.received, doubled.doubled, doubled.forwarded), (64, 64, 128));
        let cut = fate(Conditions::CUT);
        assert_eq!((cut.received, cut.lost, cut.forwarded), (64, 64, 0));
        let bad = fate(Conditions { lost: 500, ..Conditions::default() });
        assert!((1..64).contains(&bad.lost) && bad.lost + bad.forwarded == 64, "{bad:?}");
    }

    #[test]
    fn an_empty_datagram_passes() {
        let town = Town::new();
        town.brokers[0].send_to(b"", town.front(1)).unwrap();
        assert_eq!(receive(&town.brokers[1]), (Vec::new(), town.front(0)));
    }

    #[test]
    fn a_bad_link_loses_and_doubles() {
        let town = Town::new();
        let bad = Conditions {
            lost: 300,
            doubled: 300,
            held_back: Duration::from_millis(1),
            ..Conditions::default()
        };
        town.relay.set(ONE, TWO, bad);
        for number in 0..200_u8 {
            town.brokers[0].send_to(&[number], town.front(1)).unwrap();
        }
        while town.relay.traffic().received < 200 {
            std::thread::yield_now();
        }
        town.relay.heal();
        town.brokers[0].send_to(b"end", town.front(1)).unwrap();
        let mut seen = [0; 200];
        let mut arrived = 0;
        let traffic = loop {
            let (bytes, _) = receive(&town.brokers[1]);
            if bytes != b"end" {
                seen[usize::from(bytes[0])] += 1;
            }
            arrived += 1;
            let traffic = town.relay.traffic();
            if arrived == 201 - traffic.lost + traffic.doubled {
                break traffic;
            }
        };
        let count = |times| seen.iter().filter(|seen| **seen == times).count() as u64;
        assert!(traffic.lost > 20 && traffic.doubled > 20, "{traffic:?}");
        assert_eq!((count(0), count(2)), (traffic.lost, traffic.doubled), "{traffic:?}");
    }
}
