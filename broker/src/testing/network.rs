//! Who hears whom: the rules of a network that loses on purpose.
//!
//! Every broker has one socket, for clients and for peers, so the address at the other end of a datagram says what it
//! is: that of another broker, or else a client's.
//!
//! | rule | what is lost |
//! |---|---|
//! | an island | every datagram between a broker on it and one that is not |
//! | a muted broker | every datagram from it to a client; what clients send to it arrives |

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use sequor_client::protocol::BrokerId;

/// The network of one cluster.
#[derive(Debug)]
pub(super) struct Network {
    places: BTreeMap<(IpAddr, u16), BrokerId>,
    rules: RwLock<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    island: BTreeSet<BrokerId>,
    muted: BTreeSet<BrokerId>,
}

impl Network {
    /// One in which everybody hears everybody.
    pub(super) fn new(brokers: &[(BrokerId, SocketAddr)]) -> Self {
        let places = brokers.iter().map(|(id, address)| (place(*address), *id)).collect();
        Self { places, rules: RwLock::default() }
    }

    /// These brokers and all others hear each other no more. Takes the place of the island before.
    pub(super) fn set_island(&self, brokers: &[BrokerId]) {
        self.rules_to_change().island = brokers.iter().copied().collect();
    }

    /// Whether what this broker sends to clients is lost.
    pub(super) fn set_muted(&self, broker: BrokerId, muted: bool) {
        let mut rules = self.rules_to_change();
        if muted {
            rules.muted.insert(broker);
        } else {
            rules.muted.remove(&broker);
        }
    }

    /// Whether two brokers hear each other.
    pub(super) fn connects(&self, one: BrokerId, other: BrokerId) -> bool {
        self.rules().connect(one, other)
    }

    /// Whether a datagram that a broker sends arrives.
    pub(super) fn lets_out(&self, from: BrokerId, to: SocketAddr) -> bool {
        let rules = self.rules();
        match self.places.get(&place(to)) {
            Some(peer) => rules.connect(from, *peer),
            None => !rules.muted.contains(&from),
        }
    }

    /// Whether a datagram that has come as far as a broker's socket gets in.
    pub(super) fn lets_in(&self, to: BrokerId, from: SocketAddr) -> bool {
        self.places.get(&place(from)).is_none_or(|peer| self.connects(to, *peer))
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules_to_change(&self) -> RwLockWriteGuard<'_, Rules> {
        self.rules.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules {
    fn connect(&self, one: BrokerId, other: BrokerId) -> bool {
        self.island.contains(&one) == self.island.contains(&other)
    }
}

/// The same for `127.0.0.1` and `::ffff:127.0.0.1`, which a socket of both families sees.
fn place(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: BrokerId = BrokerId(1);
    const TWO: BrokerId = BrokerId(2);
    const THREE: BrokerId = BrokerId(3);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn network() -> Network {
        Network::new(&[(ONE, address(1)), (TWO, address(2)), (THREE, address(3))])
    }

    #[test]
    fn an_island_hears_itself_and_clients_alone() {
        let network = network();
        network.set_island(&[ONE, TWO]);
        for (from, to, passes) in [(ONE, 2, true), (ONE, 3, false), (THREE, 1, false), (THREE, 9, true)] {
            assert_eq!(network.lets_out(from, address(to)), passes, "from {from} to {to}");
            assert_eq!(network.lets_in(from, address(to)), passes, "from {to} to {from}");
        }
        assert!(!network.lets_in(ONE, "[::ffff:127.0.0.1]:3".parse().unwrap()));
        network.set_island(&[]);
        assert!(network.lets_out(ONE, address(3)));
    }

    #[test]
    fn a_muted_broker_hears_clients_and_speaks_to_peers() {
        let network = network();
        network.set_muted(ONE, true);
        assert!(!network.lets_out(ONE, address(9)));
        assert!(network.lets_in(ONE, address(9)) && network.lets_out(ONE, address(2)));
        assert!(network.lets_out(TWO, address(9)), "another one is not muted");
        network.set_muted(ONE, false);
        assert!(network.lets_out(ONE, address(9)));
    }
}
