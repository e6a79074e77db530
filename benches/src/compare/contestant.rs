//! A contestant: a system, and what it takes a request with more than one record for.

use sequor_benches::point::Point;
use serde::Serialize;

/// What a request of more than one record is. The words of `peer-driver --how`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// One request of the system for each record; for sequor and the null log, what they do anyway.
    Each,
    /// One transaction.
    Txn,
    /// One value with the bytes of all records.
    Value,
}

impl How {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::Txn => "txn",
            Self::Value => "value",
        }
    }
}

/// One row of the comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Contestant {
    /// `sequor`, `null`, `null-in-place`, or the name of a script in `benches/peers`.
    pub(crate) system: String,
    /// What its requests are.
    pub(crate) how: How,
    /// Whether it also stands at points with one record to a request, where all ways are the same.
    with_one: bool,
    /// Whether it stands at points with more.
    with_more: bool,
}

impl Contestant {
    /// Whether it is measured there.
    pub(crate) fn takes(&self, point: Point) -> bool {
        if point.batch == 1 { self.with_one } else { self.with_more }
    }

    /// Whether it is a peer.
    pub(crate) fn is_peer(&self) -> bool {
        !matches!(&*self.system, "sequor" | "null" | "null-in-place")
    }

    /// Whether it fills segments ahead, and could live on those for a while.
    pub(crate) fn fills_ahead(&self) -> bool {
        matches!(&*self.system, "sequor" | "null")
    }

    /// As people read it.
    pub(crate) fn title(&self) -> String {
        match (self.how, &*self.system) {
            (_, "null") => "null log".to_owned(),
            (_, "null-in-place") => "null log, in place".to_owned(),
            (How::Each, system) => system.to_owned(),
            (How::Txn, system) => format!("{system}, transactions"),
            (How::Value, system) => format!("{system}, one value"),
        }
    }
}

/// Everybody, in the order of the table.
pub(crate) fn all() -> Vec<Contestant> {
    use How::{Each, Txn, Value};
    let row = |system: &str, how, with_one, with_more| Contestant {
        system: system.to_owned(),
        how,
        with_one,
        with_more,
    };
    vec![
        row("null", Each, true, true),
        row("null-in-place", Each, true, true),
        row("sequor", Each, true, true),
        row("etcd", Each, true, false),
        row("etcd", Txn, false, true),
        row("etcd", Value, false, true),
        row("etcd-latest", Each, true, false),
        row("etcd-latest", Txn, false, true),
        row("etcd-latest", Value, false, true),
        row("nats", Each, true, true),
        row("nats", Value, false, true),
        row("nats-latest", Each, true, true),
        row("nats-latest", Txn, false, true),
        row("nats-latest", Value, false, true),
        row("zookeeper", Each, true, false),
        row("zookeeper", Txn, false, true),
        row("zookeeper", Value, false, true),
        row("kafka", Each, true, true),
        row("kafka-default", Each, true, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_stands_at_every_point() {
        for point in ["1x1", "1000x16"] {
            let point: Point = point.parse().unwrap();
            let mut systems: Vec<_> =
                all().into_iter().filter(|row| row.takes(point)).map(|row| row.system).collect();
            systems.dedup();
            assert_eq!(systems.len(), 10, "{point}");
        }
    }

    #[test]
    fn peers_have_nothing_that_was_filled_ahead() {
        assert!(all().iter().all(|row| !(row.is_peer() && row.fills_ahead())));
        assert_eq!(all().iter().filter(|row| row.fills_ahead()).count(), 2);
    }

    #[test]
    fn rows_have_titles_of_their_own() {
        let mut titles: Vec<_> = all().iter().map(Contestant::title).collect();
        titles.sort();
        titles.dedup();
        assert_eq!(titles.len(), all().len());
    }
}
