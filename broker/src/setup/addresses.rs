//! Where the brokers of a new cluster are to listen: one address for each, or the first one, the others taking the ports
//! that follow.
//!
//! An address goes into the genesis, and it is where clients and the other brokers connect to for as long as the cluster
//! lives. So whatever can be wrong with it is found out before anything is made.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use thiserror::Error;

/// Why brokers cannot listen where they are to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// There are neither one nor enough addresses.
    #[error(
        "for {brokers} broker{}, give one address{}; {found} were given",
        if *.brokers == 1 { "" } else { "s" },
        if *.brokers == 1 { String::new() } else { format!(", or {brokers}") }
    )]
    Count {
        /// How many brokers.
        brokers: u64,
        /// How many addresses.
        found: usize,
    },
    /// The ports that follow the first go beyond the last one there is, or the port is 0.
    #[error(
        "{first} leaves no ports for {brokers} broker{}: choose a port from 1 to {}",
        if *.brokers == 1 { "" } else { "s" },
        65_536 - .brokers
    )]
    Ports {
        /// Address of the first broker.
        first: SocketAddr,
        /// How many brokers.
        brokers: u64,
    },
    /// Nobody can connect to this address.
    #[error(
        "{address} is no address to connect to, and it is where clients and the other brokers would connect to: give \
         one of the machine's own, such as 10.0.0.1:7400. `listen` in a broker's file may be 0.0.0.0 or [::]"
    )]
    NoPlace {
        /// The address.
        address: SocketAddr,
    },
    /// Two brokers are to listen in the same place.
    #[error("{address} is given twice: each broker needs an address of its own")]
    Twice {
        /// The address.
        address: SocketAddr,
    },
}

/// One address for each broker, all different, and such that others can connect to them. From one address, the others
/// take the ports that follow.
///
/// # Errors
///
/// See [`AddressError`].
pub fn addresses(listen: &[SocketAddr], brokers: u64) -> Result<Vec<SocketAddr>, AddressError> {
    if let Some(address) = listen.iter().find(|address| !is_place(address.ip().to_canonical())) {
        return Err(AddressError::NoPlace { address: *address });
    }
    let addresses = one_for_each(listen, brokers)?;
    let place = |address: &SocketAddr| (address.ip().to_canonical(), address.port());
    let mut seen = HashSet::new();
    match addresses.iter().find(|address| !seen.insert(place(address))) {
        Some(address) => Err(AddressError::Twice { address: *address }),
        None => Ok(addresses),
    }
}

/// Whether it is the address of one machine.
fn is_place(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST
}

fn one_for_each(listen: &[SocketAddr], brokers: u64) -> Result<Vec<SocketAddr>, AddressError> {
    let count = usize::try_from(brokers).unwrap_or(usize::MAX);
    match listen {
        [first] => {
            let ports = (u64::from(first.port())..).map(u16::try_from).take(count);
            let ports = ports.collect::<Result<Vec<_>, _>>().ok().filter(|ports| !ports.contains(&0));
            let ports = ports.ok_or(AddressError::Ports { first: *first, brokers })?;
            Ok(ports.into_iter().map(|port| SocketAddr::new(first.ip(), port)).collect())
        }
        _ if listen.len() == count => match listen.iter().find(|address| address.port() == 0) {
            Some(address) => Err(AddressError::Ports { first: *address, brokers: 1 }),
            None => Ok(listen.to_vec()),
        },
        _ => Err(AddressError::Count { brokers, found: listen.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &str, brokers: u64) -> Result<Vec<SocketAddr>, AddressError> {
        addresses(&parse(list), brokers)
    }

    fn parse(list: &str) -> Vec<SocketAddr> {
        list.split(',').map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn ports_follow_the_first_or_are_all_given() {
        assert_eq!(of("127.0.0.1:7400", 3).unwrap(), parse("127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402"));
        assert_eq!(of("[::1]:9,127.0.0.1:9", 2).unwrap(), parse("[::1]:9,127.0.0.1:9"));
        assert_eq!(of("127.0.0.1:65535", 1).unwrap(), parse("127.0.0.1:65535"));
        assert!(matches!(of("127.0.0.1:65534", 3), Err(AddressError::Ports { .. })));
        assert!(matches!(of("127.0.0.1:0", 1), Err(AddressError::Ports { .. })));
        assert!(matches!(of("127.0.0.1:1,127.0.0.1:0", 2), Err(AddressError::Ports { brokers: 1, .. })));
        assert!(matches!(of("127.0.0.1:1,127.0.0.1:2", 3), Err(AddressError::Count { found: 2, .. })));
    }

    #[test]
    fn an_address_is_a_place_and_each_broker_has_its_own() {
        for nowhere in
            ["0.0.0.0:7400", "[::]:7400", "[::ffff:0.0.0.0]:7400", "224.0.0.1:7400", "255.255.255.255:7400"]
        {
            assert!(matches!(of(nowhere, 3), Err(AddressError::NoPlace { .. })), "{nowhere}");
        }
        for twice in ["10.0.0.1:7400,10.0.0.1:7400", "10.0.0.1:7400,[::ffff:10.0.0.1]:7400"] {
            let refused = of(twice, 2).unwrap_err();
            assert!(matches!(refused, AddressError::Twice { .. }), "{refused}");
        }
    }

    #[test]
    fn the_number_of_addresses_reads_well() {
        let told = |list, brokers| of(list, brokers).unwrap_err().to_string();
        assert_eq!(told("127.0.0.1:1,127.0.0.1:2", 3), "for 3 brokers, give one address, or 3; 2 were given");
        assert_eq!(told("127.0.0.1:1,127.0.0.1:2", 1), "for 1 broker, give one address; 2 were given");
    }
}
