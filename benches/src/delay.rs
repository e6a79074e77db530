//! Links that take time: `sequor bench relay` as a child process.
//!
//! Everything that is compared is delayed by the same relay, on loopback and without root. Each member is known to the
//! others, and to the client, by an address of the relay, which passes on to the member's own:
//!
//! ```text
//!   client ──► relay :a1 ──► member 1 :m1
//!   member 2 ──► relay :a1 ──► member 1 :m1        each way takes half of the round trip
//! ```

use std::{ffi::OsString, path::Path};

use crate::child::{ChildError, Dependant, free_ports};

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Bytes of a connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Ports, and the ports under which they are known.
#[derive(Debug)]
pub struct Links {
    /// Where each listens.
    pub own: Vec<u16>,
    /// Where the others reach it. The same if there is no delay.
    pub known: Vec<u16>,
    /// Held so that it runs.
    _relay: Option<Dependant>,
}

impl Links {
    /// Makes `count` links that take `rtt_us` microseconds there and back, with the relay of `sequor`. A link without
    /// delay goes through no relay.
    ///
    /// # Errors
    /// If there is no port, or the relay cannot be started.
    pub fn lay(sequor: &Path, carries: Carries, count: usize, rtt_us: u64) -> Result<Self, ChildError> {
        let mut own = free_ports(2 * count)?;
        let known = own.split_off(count);
        if rtt_us == 0 {
            return Ok(Self { known: own.clone(), own, _relay: None });
        }
        let mut relay = Dependant::start(sequor, arguments(carries, &own, &known, rtt_us), [])?;
        relay.ready()?;
        Ok(Self { own, known, _relay: Some(relay) })
    }
}

fn arguments(carries: Carries, own: &[u16], known: &[u16], rtt_us: u64) -> Vec<OsString> {
    let scheme = match carries {
        Carries::Tcp => "tcp",
        Carries::Udp => "udp",
    };
    let mut arguments: Vec<OsString> = ["bench", "relay", "--rtt"].map(Into::into).into();
    arguments.push(format!("{rtt_us}us").into());
    for (known, own) in known.iter().zip(own) {
        arguments.push("--link".into());
        arguments.push(format!("{scheme}:127.0.0.1:{known}=127.0.0.1:{own}").into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_delay_there_is_no_relay() {
        let links = Links::lay(Path::new("no-such-program-here"), Carries::Udp, 3, 0).unwrap();
        assert_eq!(links.own, links.known);
        assert_eq!(links.own.len(), 3);
    }

    #[test]
    fn the_relay_is_told_each_link() {
        let told = arguments(Carries::Tcp, &[1, 2], &[3, 4], 5000);
        let told: Vec<_> = told.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            told.join(" "),
            "bench relay --rtt 5000us --link tcp:127.0.0.1:3=127.0.0.1:1 --link tcp:127.0.0.1:4=127.0.0.1:2"
        );
    }
}
