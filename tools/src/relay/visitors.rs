//! The clients' ways through the relay.
//!
//! A client has no front. For each client and broker there is a socket of its own from which the broker hears of it, so
//! that the answer finds back. One that was silent for a while is forgotten; a client that comes back gets another one,
//! as from a home router, and QUIC takes that for a change of address.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{ANYWHERE, socket::Socket};

/// Most ways at once. The one that was silent for longest makes room. Count.
const VISITORS_MAX: usize = 512;
/// Silence after which a way is forgotten: longer than that after which a connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// One client's way to one broker.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) socket: Socket,
    /// Place of the broker's front.
    pub(super) front: usize,
    pub(super) client: SocketAddr,
    heard: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Visitors {
    ways: HashMap<u64, Visitor>,
    keys: HashMap<(usize, SocketAddr), u64>,
    count: u64,
}

impl Visitors {
    /// The way of a client to a broker; a new one, if it has none.
    pub(super) fn of(&mut self, now: Instant, front: usize, client: SocketAddr) -> io::Result<u64> {
        if let Some(key) = self.keys.get(&(front, client)) {
            if let Some(visitor) = self.ways.get_mut(key) {
                visitor.heard = now;
            }
            return Ok(*key);
        }
        if self.ways.len() >= VISITORS_MAX {
            let silent = self.ways.iter().min_by_key(|(_, visitor)| visitor.heard).map(|(key, _)| *key);
            silent.into_iter().for_each(|key| self.forget(key));
        }
        self.count += 1;
        let visitor = Visitor { socket: Socket::bind(ANYWHERE)?, front, client, heard: now };
        self.ways.insert(self.count, visitor);
        self.keys.insert((front, client), self.count);
        Ok(self.count)
    }

    pub(super) fn get(&self, key: u64) -> Option<&Visitor> {
        self.ways.get(&key)
    }

    /// The broker has said something.
    pub(super) fn heard(&mut self, key: u64, now: Instant) {
        if let Some(visitor) = self.ways.get_mut(&key) {
            visitor.heard = now;
        }
    }

    /// All keys, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        self.ways.keys().copied()
    }

    /// Forgets those that are silent.
    pub(super) fn forget_silent(&mut self, now: Instant) {
        let silent = |visitor: &Visitor| now.saturating_duration_since(visitor.heard) > SILENCE_MAX;
        let keys: Vec<_> =
            self.ways.iter().filter(|(_, visitor)| silent(visitor)).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.forget(key));
    }

    fn forget(&mut self, key: u64) {
        if let Some(visitor) = self.ways.remove(&key) {
            self.keys.remove(&(visitor.front, visitor.client));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_keeps_its_way_until_it_is_silent() {
        let now = Instant::now();
        let client: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mut visitors = Visitors::default();
        let key = visitors.of(now, 0, client).unwrap();
        assert_ne!(visitors.of(now, 1, client).unwrap(), key, "another one to another broker");
        assert_eq!(visitors.of(now + SILENCE_MAX, 0, client).unwrap(), key);
        visitors.forget_silent(now + SILENCE_MAX + Duration::from_secs(1));
        assert_eq!(visitors.keys().collect::<Vec<_>>(), [key]);
    }

    #[test]
    fn the_most_silent_makes_room() {
        let now = Instant::now();
        let mut visitors = Visitors::default();
        let client = |at: usize| SocketAddr::from(([127, 0, 0, 1], at as u16 + 1));
        let first = visitors.of(now, 0, client(0)).unwrap();
        for at in 1..=VISITORS_MAX {
            visitors.of(now + Duration::from_secs(1), 0, client(at)).unwrap();
        }
        assert!(visitors.get(first).is_none() && visitors.keys().count() == VISITORS_MAX);
    }
}
