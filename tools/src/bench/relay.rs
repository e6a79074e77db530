//! `sequor bench relay`: a long way between programs on this machine, for as long as somebody holds its stdin.
//!
//! It is what `bench append --rtt` puts between its own brokers, for whoever measures something else in the same way.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, stdin};

use super::lists::round_trip;
use crate::{
    exit::{Exit, Failure, Verdict},
    interruption::Interruptions,
    output,
    relay::{Conditions, Relay, Wire},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Half of the round trip passes in each direction. It prints one line for each link when all of them work: protocol, where \
it listens, where it leads. Port 0 is any free port. It ends when its standard input does.

A way of TCP ends here and begins anew, so that acknowledgements come at once: a system that speaks TCP does not meet \
slow start over the long way, and is measured at its best. Datagrams are carried as they are. Datagrams that one target \
sends to the front of another come from the front of the first, as brokers of sequor expect.

Examples:
  sequor bench relay --rtt 5ms --link tcp:127.0.0.1:12379=127.0.0.1:2379
  sequor bench relay --rtt 30ms --link tcp:127.0.0.1:0=127.0.0.1:2380 --link udp:127.0.0.1:0=127.0.0.1:7400 < /dev/tty")]
pub(super) struct RelayArgs {
    /// Time for the way there and back, such as 500us, 5ms or 100ms.
    #[arg(long, value_name = "TIME", value_parser = round_trip)]
    rtt: Duration,

    /// What to carry: tcp or udp, where to listen, and where it leads. May be repeated.
    #[arg(long, value_name = "PROTOCOL:LISTEN=TARGET", required = true, value_parser = Link::parse)]
    link: Vec<Link>,
}

/// One link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    protocol: Protocol,
    listen: SocketAddr,
    target: SocketAddr,
}

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Link {
    fn parse(text: &str) -> Result<Self, String> {
        let form = "write it as tcp:127.0.0.1:12379=127.0.0.1:2379, or with udp";
        let (protocol, addresses) = text.split_once(':').ok_or(form)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(form.to_owned()),
        };
        let (listen, target) = addresses.split_once('=').ok_or(form)?;
        let address =
            |text: &str| text.parse::<SocketAddr>().map_err(|error| format!("{text}: {error}; {form}"));
        let link = Self { protocol, listen: address(listen)?, target: address(target)? };
        if protocol == Protocol::Udp && !link.target.ip().is_loopback() {
            return Err(format!("{target}: datagrams are carried on this machine only, to 127.0.0.1"));
        }
        Ok(link)
    }
}

/// The command cannot go on.
#[derive(Debug, Error)]
#[error("cannot read standard input, which says how long the relay is wanted")]
struct StdinError {
    #[from]
    source: std::io::Error,
}

impl Verdict for StdinError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

pub(super) async fn run(args: RelayArgs) -> Result<(), Failure> {
    let mut interruptions = Interruptions::listen()?;
    let of = |protocol| {
        let links = args.link.iter().filter(move |link| link.protocol == protocol);
        links.map(|link| (link.listen, link.target)).collect::<Vec<_>>()
    };
    let delay = args.rtt / 2;
    let (tcp, udp) = (of(Protocol::Tcp), of(Protocol::Udp));
    let wire = Wire::start(&tcp, delay)?;
    let relay = Relay::between(&udp, 0)?;
    relay.set_all(Conditions { delay, ..Conditions::default() });
    let (mut tcp, mut udp) = (wire.fronts().iter(), relay.fronts().iter());
    let mut text = String::new();
    for Link { protocol, target, .. } in &args.link {
        let (word, front) = match protocol {
            Protocol::Tcp => ("tcp", tcp.next()),
            Protocol::Udp => ("udp", udp.next()),
        };
        let front = front.expect("each link has a front");
        text.push_str(&format!("{word} {front} {target}\n"));
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(output::failed)?;
    tokio::select! {
        biased;
        interruption = interruptions.next() => Err(interruption.into()),
        over = until_over() => Ok(over?),
    }
}

/// Waits for the end of standard input.
async fn until_over() -> Result<(), StdinError> {
    let mut ignored = [0; 64];
    while stdin().read(&mut ignored).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_protocol_front_and_target() {
        let link = Link::parse("udp:127.0.0.1:0=127.0.0.1:7400").unwrap();
        assert_eq!((link.protocol, link.listen.port(), link.target.port()), (Protocol::Udp, 0, 7400));
        assert_eq!(Link::parse("tcp:[::1]:1=10.0.0.1:2").unwrap().target, "10.0.0.1:2".parse().unwrap());
        for wrong in ["", "tcp", "tcp:1=2", "ip:127.0.0.1:1=127.0.0.1:2", "udp:127.0.0.1:1=10.0.0.1:2"] {
            assert!(Link::parse(wrong).is_err(), "{wrong}");
        }
    }
}
