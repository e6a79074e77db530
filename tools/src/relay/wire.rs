//! TCP connections through the relay: what one end says, the other hears, later.
//!
//! ```text
//!   client ── accept ─► [ way there: read ─► delay line ─► pending ─► write ] ─► target
//!          ◄─────────── [ way back                                          ] ◄──
//! ```
//!
//! One thread, one epoll, and the same delay line that datagrams have. A way holds a bounded number of bytes; when it is
//! full it is not read, and TCP carries that back. The end of what one side says travels as its bytes do.
//!
//! What a user-space relay cannot do for TCP: each half of a connection ends here, so its acknowledgements come at once,
//! and neither slow start nor a small window meets the long way. A system behind this wire is measured at its best.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU64,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
        poll,
    },
    thread::set_current_timer_slack,
};

use super::{RelayError, delay_line::DelayLine, post::TIMER_SLACK_NS};

/// What is read of a connection at once. Bytes.
const READ_BYTES: usize = 128 << 10;
/// What is read of one connection before the others have their turn. Count of reads.
const BURST_MAX: usize = 8;
/// Most bytes that are on one way of a connection: 640 MB/s over a way of 100 ms.
const WAY_BYTES_MAX: usize = 64 << 20;
/// Events that are taken at once. Count.
const EVENTS_MAX: usize = 256;
/// Longest sleep: then it is looked whether the relay is to end.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// For the target to accept a connection: it is on this machine, or nearly.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Set in the number of an event that is a listener's.
const LISTENER: u64 = 1 << 63;

/// TCP links that are carried; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    fronts: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Wire {
    /// Listens at the first address of each link, and carries what comes to the second one. Everything takes `delay` in
    /// either direction.
    ///
    /// # Errors
    /// If an address is in use, or there is no thread.
    pub(crate) fn start(links: &[(SocketAddr, SocketAddr)], delay: Duration) -> Result<Self, RelayError> {
        let stop = Arc::new(AtomicBool::new(false));
        let exchange = Exchange::new(links, delay)?;
        let fronts = exchange.doors.iter().map(|(door, _)| door.local_addr());
        let fronts = fronts.collect::<io::Result<Vec<_>>>()?;
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name("wire".into()).spawn(move || exchange.run(&told))?;
        Ok(Self { fronts, stop, thread: Some(thread) })
    }

    /// Where the targets are reached, in the order of the links.
    pub(crate) fn fronts(&self) -> &[SocketAddr] {
        &self.fronts
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so on stderr.
            let _panicked = thread.join();
        }
    }
}

/// Something on its way: bytes, or, if there are none, the end.
#[derive(Debug)]
struct Parcel {
    connection: u64,
    /// From which end it came.
    from: usize,
    bytes: Box<[u8]>,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Way {
    /// On the delay line, or pending. Bytes.
    held: usize,
    /// What has arrived and is not written yet.
    pending: VecDeque<Box<[u8]>>,
    /// How much of the first of them is.
    written: usize,
    /// The end was read.
    is_read: bool,
    /// The end has arrived, and is written when nothing is pending any more.
    has_ended: bool,
    /// The end is written.
    is_over: bool,
}

/// A connection: the way from each end to the other.
#[derive(Debug)]
struct Connection {
    ends: [TcpStream; 2],
    ways: [Way; 2],
    /// What is waited for at each end; none if the end is not watched any more.
    watched: [Option<EventFlags>; 2],
}

impl Connection {
    /// What is to be waited for at an end.
    fn wanted(&self, end: usize) -> EventFlags {
        let (there, back) = (&self.ways[end], &self.ways[1 - end]);
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, !there.is_read && there.held < WAY_BYTES_MAX);
        wanted.set(EventFlags::OUT, !back.pending.is_empty());
        wanted
    }

    /// Writes what has arrived from an end, as far as the other end takes it.
    fn write(&mut self, from: usize) -> io::Result<()> {
        let (way, to) = (&mut self.ways[from], &mut self.ends[1 - from]);
        while let Some(first) = way.pending.front() {
            match to.write(&first[way.written..]) {
                Ok(count) => {
                    way.written += count;
                    way.held -= count;
                    if way.written == first.len() {
                        way.pending.pop_front();
                        way.written = 0;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if way.has_ended && !way.is_over {
            way.is_over = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.ways.iter().all(|way| way.is_over)
    }
}

/// What runs in the thread.
#[derive(Debug)]
struct Exchange {
    epoll: OwnedFd,
    /// Where connections come in, and where they go.
    doors: Vec<(TcpListener, SocketAddr)>,
    connections: HashMap<u64, Connection>,
    count: u64,
    line: DelayLine<Parcel>,
    delay: Duration,
}

impl Exchange {
    fn new(links: &[(SocketAddr, SocketAddr)], delay: Duration) -> Result<Self, RelayError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut doors = Vec::new();
        for (number, (listen, target)) in (0..).zip(links) {
            let door = TcpListener::bind(listen).map_err(RelayError::at(*listen))?;
            door.set_nonblocking(true)?;
            epoll::add(&epoll, &door, EventData::new_u64(LISTENER | number), EventFlags::IN)
                .map_err(io::Error::from)?;
            doors.push((door, *target));
        }
        let connections = HashMap::new();
        Ok(Self { epoll, doors, connections, count: 0, line: DelayLine::new(), delay })
    }

    fn run(mut self, stop: &AtomicBool) {
        // A kernel that does not know it rounds to fifty microseconds.
        let _coarser = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
        let mut buffer = vec![0; READ_BYTES];
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while !stop.load(Ordering::Relaxed) {
            self.sleep(&mut events);
            for event in events.drain(..) {
                match event.data.u64() {
                    door if door & LISTENER != 0 => self.accept((door & !LISTENER) as usize),
                    end => self.attend(end >> 1, (end & 1) as usize, event.flags, &mut buffer),
                }
            }
            let now = Instant::now();
            while let Some(parcel) = self.line.pop(now) {
                self.deliver(parcel);
            }
        }
    }

    /// Sleeps until something has come or is due. epoll's own timer counts milliseconds, that of poll nanoseconds.
    fn sleep(&self, events: &mut Vec<Event>) {
        let sleep = self.line.wait(Instant::now()).map_or(SLEEP_MAX, |wait| wait.min(SLEEP_MAX));
        let sleep = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
        // Interrupted, it looks again.
        if poll(&mut fds, Some(&sleep)).is_ok_and(|count| count > 0) {
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let room = rustix::buffer::spare_capacity(events);
            let _count = epoll::wait(&self.epoll, room, Some(&none));
        }
    }

    fn accept(&mut self, door: usize) {
        while let Ok((client, _)) = self.doors[door].0.accept() {
            // Without a target, or a place to watch it from, the client finds its connection closed.
            let _closed = self.connect(client, self.doors[door].1);
        }
    }

    fn connect(&mut self, client: TcpStream, target: SocketAddr) -> io::Result<()> {
        let ends = [client, TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?];
        let number = self.count;
        for (end, stream) in (0..).zip(&ends) {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&self.epoll, stream, EventData::new_u64(number << 1 | end), EventFlags::IN)?;
        }
        let watched = [Some(EventFlags::IN); 2];
        self.connections.insert(number, Connection { ends, ways: Default::default(), watched });
        self.count += 1;
        Ok(())
    }

    /// Does what can be done at an end.
    fn attend(&mut self, number: u64, end: usize, flags: EventFlags, buffer: &mut [u8]) {
        // One of the same turn that is closed already.
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let due = Instant::now() + self.delay;
        let mut outcome = connection.write(1 - end);
        let is_broken = flags.contains(EventFlags::ERR);
        if outcome.is_ok() && (flags.contains(EventFlags::IN) || is_broken) {
            outcome = read(connection, number, end, due, &mut self.line, buffer);
        }
        // Both of its ways are over as far as it is concerned, and it would say so for ever.
        if flags.contains(EventFlags::HUP)
            && connection.ways[end].is_read
            && connection.watched[end].is_some()
        {
            connection.watched[end] = None;
            outcome = outcome.and(epoll::delete(&self.epoll, &connection.ends[end]).map_err(Into::into));
        }
        self.settle(number, outcome);
    }

    fn deliver(&mut self, parcel: Parcel) {
        let Some(connection) = self.connections.get_mut(&parcel.connection) else { return };
        let way = &mut connection.ways[parcel.from];
        match parcel.bytes.is_empty() {
            true => way.has_ended = true,
            false => way.pending.push_back(parcel.bytes),
        }
        // What waits behind something else waits for the other end to take it.
        let is_next = connection.ways[parcel.from].pending.len() <= 1;
        let outcome = if is_next { connection.write(parcel.from) } else { Ok(()) };
        self.settle(parcel.connection, outcome);
    }

    /// Waits for what a connection needs next; forgets one that is broken or over.
    fn settle(&mut self, number: u64, outcome: io::Result<()>) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let watch = |connection: &mut Connection, end: usize| {
            let wanted = connection.wanted(end);
            if connection.watched[end].is_some_and(|watched| watched != wanted) {
                connection.watched[end] = Some(wanted);
                let data = EventData::new_u64(number << 1 | end as u64);
                epoll::modify(&self.epoll, &connection.ends[end], data, wanted)?;
            }
            io::Result::Ok(())
        };
        let settled = outcome.and_then(|()| watch(connection, 0)).and_then(|()| watch(connection, 1));
        if settled.is_err() || connection.is_over() {
            // Its sockets close, and leave the epoll by that.
            self.connections.remove(&number);
        }
    }
}

/// Puts on its way what an end says.
fn read(
    connection: &mut Connection,
    number: u64,
    end: usize,
    due: Instant,
    line: &mut DelayLine<Parcel>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let way = &mut connection.ways[end];
    for _ in 0..BURST_MAX {
        if way.is_read || way.held >= WAY_BYTES_MAX {
            break;
        }
        match connection.ends[end].read(buffer) {
            Ok(count) => {
                way.is_read = count == 0;
                way.held += count;
                line.push(due, Parcel { connection: number, from: end, bytes: buffer[..count].into() });
                if count < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// A wire to somebody who sends everything back.
    fn echo(delay: Duration) -> (Wire, thread::JoinHandle<()>) {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = target.local_addr().unwrap();
        let wire = Wire::start(&[("127.0.0.1:0".parse().unwrap(), address)], delay).unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = target.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut back = stream.try_clone().unwrap();
            io::copy(&mut stream, &mut back).unwrap();
            back.shutdown(Shutdown::Write).unwrap();
        });
        (wire, echo)
    }

    fn connect(wire: &Wire) -> TcpStream {
        let stream = TcpStream::connect(wire.fronts()[0]).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    #[test]
    fn there_and_back_takes_both_delays_and_not_much_more() {
        let delay = Duration::from_micros(1_500);
        let (wire, echo) = echo(delay);
        let mut stream = connect(&wire);
        let mut took: Vec<_> = (0..50_u8)
            .map(|round| {
                let start = Instant::now();
                stream.write_all(&[round]).unwrap();
                let mut answer = [0];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer, [round]);
                start.elapsed()
            })
            .collect();
        took.sort_unstable();
        assert!(took[0] >= delay * 2, "{took:?}");
        // Not all of them can have been held up by a busy machine.
        assert!(took[0] < delay * 10, "{took:?}");
        drop(stream);
        echo.join().unwrap();
    }

    #[test]
    fn everything_arrives_in_order_and_so_does_the_end() {
        let (wire, echo) = echo(Duration::from_millis(2));
        let mut stream = connect(&wire);
        let sent: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writer = thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        echo.join().unwrap();
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
    }

    #[test]
    fn a_connection_to_nobody_is_closed() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let wire = Wire::start(&[("127.0.0.1:0".parse().unwrap(), free)], Duration::ZERO).unwrap();
        let mut stream = connect(&wire);
        let mut nothing = Vec::new();
        // Closed or reset: in both cases nothing was said.
        let _reset = stream.read_to_end(&mut nothing);
        assert!(nothing.is_empty());
    }

    /// What it carries: `cargo test --release -p sequor carried -- --nocapture` prints it.
    #[test]
    fn what_is_carried_is_told() {
        for delay in [Duration::ZERO, Duration::from_millis(5)] {
            let (wire, echo) = echo(delay);
            let stream = connect(&wire);
            let bytes = 64 << 20;
            let mut writer = stream.try_clone().unwrap();
            let start = Instant::now();
            let writer = thread::spawn(move || {
                let piece = vec![7; 1 << 20];
                (0..bytes / piece.len()).for_each(|_| writer.write_all(&piece).unwrap());
                writer.shutdown(Shutdown::Write).unwrap();
            });
            // A signal ends a read that has a timeout, even under SA_RESTART: `copy` goes on.
            let mut reader = BufReader::with_capacity(1 << 20, stream);
            let back = io::copy(&mut reader, &mut io::sink()).unwrap();
            let took = start.elapsed();
            writer.join().unwrap();
            echo.join().unwrap();
            assert_eq!(back, bytes as u64);
            println!("{delay:?}: {:.0} MB/s, there and back", bytes as f64 / took.as_secs_f64() / 1e6);
        }
    }
}
