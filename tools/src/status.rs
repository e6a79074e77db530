//! `sequor status`: what each broker says of itself.
//!
//! Every broker of the context is asked directly and at the same time: this also works, and is needed most, when no
//! leader answers.

use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use tokio::task::JoinSet;

use sequor_client::{
    Client, ConnectError,
    protocol::{Counters, Member, Role, Status},
};

use crate::{
    cli::{Global, Shape},
    exit::{Exit, Failure, Verdict},
    output, remote,
    table::{Table, Tone},
    visible::visible,
    words::plain_count,
};

/// Longest wait for the brokers' answers: one that takes longer is not well, and others wait to be shown.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 4: no broker answers. 5: there is no leader that a majority follows.

Examples:
  sequor --context demo/context.toml status
  sequor status -o json | jq '.brokers[] | select(.role == \"leader\")'")]
pub(crate) struct StatusArgs {
    /// How to print it.
    #[arg(short, long, default_value = "table")]
    output: Shape,
}

/// The cluster is not well.
#[derive(Debug, Error)]
pub(crate) enum StatusError {
    /// Nobody answered.
    #[error("of {}, none answers", plain_count(*.brokers as u64, "broker"))]
    Unreachable {
        /// How many were asked.
        brokers: usize,
        /// What went wrong, if no connection came about at all.
        source: Option<ConnectError>,
    },
    /// There is no leader that a majority follows.
    #[error("no leader that a majority of the {} follows", plain_count(*.brokers as u64, "broker"))]
    NoLeader {
        /// How many were asked.
        brokers: usize,
    },
}

impl Verdict for StatusError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::NoLeader { .. } => Exit::Unhealthy,
        }
    }
}

/// One broker: what it says of itself, as far as it answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) role: Option<Role>,
    pub(crate) term: Option<u64>,
    pub(crate) leader: Option<u64>,
    pub(crate) last_index: Option<u64>,
    pub(crate) commit: Option<u64>,
    pub(crate) applied: Option<u64>,
    pub(crate) end_offset: Option<u64>,
    /// Its disk has no room: as leader it takes no writes.
    pub(crate) is_full: Option<bool>,
    pub(crate) reachable: bool,
    /// What it did since it started: syncs, blocks, batches and the like.
    pub(crate) counters: Option<Counters>,
}

/// All brokers.
#[derive(Debug, Serialize)]
struct Brokers<'a> {
    brokers: &'a [Row],
}

impl Row {
    /// A row from an answer, or from its absence.
    fn new(broker: &Member, status: Option<&Status>) -> Self {
        Self {
            id: broker.id.0,
            address: broker.address.clone(),
            role: status.map(|status| status.role),
            term: status.map(|status| status.term),
            leader: status.and_then(|status| status.leader).map(|leader| leader.0),
            last_index: status.map(|status| status.last_index),
            commit: status.map(|status| status.commit),
            applied: status.map(|status| status.applied),
            end_offset: status.map(|status| status.end.0),
            is_full: status.map(|status| status.is_full),
            reachable: status.is_some(),
            counters: status.map(|status| status.counters),
        }
    }
}

pub(crate) async fn run(args: StatusArgs, global: &Global) -> Result<(), Failure> {
    let mut config = remote::config(global)?;
    config.deadline = config.deadline.min(ANSWER_TIMEOUT);
    let brokers = config.brokers.clone();
    let (rows, trouble) = match Client::connect(&config).await {
        Ok(client) => (ask(&client, &brokers, config.deadline).await, None),
        Err(error @ ConnectError::Unreachable { .. }) => {
            (brokers.iter().map(|broker| Row::new(broker, None)).collect(), Some(error))
        }
        Err(error) => return Err(error.into()),
    };
    output::print(&match args.output {
        Shape::Table => render(&rows),
        Shape::Json => {
            serde_json::to_string(&Brokers { brokers: &rows }).expect("rows have string keys") + "\n"
        }
    })?;
    match leader(&rows) {
        Ok(_) => Ok(()),
        Err(StatusError::Unreachable { brokers, .. }) => {
            Err(StatusError::Unreachable { brokers, source: trouble }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Asks all brokers at the same time. One that has not answered after `patience` counts as unreachable.
pub(crate) async fn ask(client: &Client, brokers: &[Member], patience: Duration) -> Vec<Row> {
    let mut asked = JoinSet::new();
    for broker in brokers.iter().cloned() {
        let client = client.clone();
        asked.spawn(async move { Row::new(&broker, client.status(broker.id, patience).await.ok().as_ref()) });
    }
    let mut rows = asked.join_all().await;
    rows.sort_by_key(|row| row.id);
    rows
}

/// The broker that says it leads and that a majority names as leader.
///
/// # Errors
/// If there is none.
pub(crate) fn leader(rows: &[Row]) -> Result<u64, StatusError> {
    if rows.iter().all(|row| !row.reachable) {
        return Err(StatusError::Unreachable { brokers: rows.len(), source: None });
    }
    let follow = |leader: &Row| {
        let followers =
            rows.iter().filter(|row| row.leader == Some(leader.id) && row.term == leader.term).count();
        followers > rows.len() / 2
    };
    let leader = rows.iter().find(|row| row.role == Some(Role::Leader) && follow(row));
    leader.map(|leader| leader.id).ok_or(StatusError::NoLeader { brokers: rows.len() })
}

fn render(rows: &[Row]) -> String {
    let mut table = Table::new([
        "id",
        "address",
        "role",
        "term",
        "leader",
        "last index",
        "commit",
        "applied",
        "end offset",
        "disk",
    ]);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for row in rows {
        let tone = match row.role {
            Some(Role::Leader) => Tone::Good,
            Some(_) => Tone::Plain,
            None => Tone::Bad,
        };
        let cells = [
            row.id.to_string(),
            visible(&row.address),
            row.role.map_or("unreachable", role).to_owned(),
            number(row.term),
            number(row.leader),
            number(row.last_index),
            number(row.commit),
            number(row.applied),
            number(row.end_offset),
            row.is_full.map_or("-", |is_full| if is_full { "full" } else { "ok" }).to_owned(),
        ];
        table.row(tone, cells);
    }
    table.text(3..9)
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
    }
}

#[cfg(test)]
mod tests {
    use sequor_client::protocol::{BrokerId, Offset};

    use super::*;

    fn broker(id: u64) -> Member {
        Member { id: BrokerId(id), address: format!("127.0.0.1:740{id}") }
    }

    fn row(id: u64, role: Role, term: u64, leader: Option<u64>) -> Row {
        let status = Status {
            id: BrokerId(id),
            role,
            term,
            leader: leader.map(BrokerId),
            last_index: 12,
            commit: 11,
            applied: 10,
            end: Offset(9),
            is_full: false,
            counters: Counters::default(),
        };
        Row::new(&broker(id), Some(&status))
    }

    fn silent(id: u64) -> Row {
        Row::new(&broker(id), None)
    }

    #[test]
    fn a_leader_is_whom_a_majority_follows() {
        let (leads, follows) = (row(1, Role::Leader, 2, Some(1)), row(2, Role::Follower, 2, Some(1)));
        let none = |rows: &[Row]| matches!(leader(rows), Err(StatusError::NoLeader { brokers: 3 }));
        assert_eq!(leader(&[leads.clone(), follows.clone(), silent(3)]).unwrap(), 1);
        assert!(none(&[leads.clone(), silent(2), silent(3)]), "nobody follows");
        assert!(none(&[silent(1), follows, silent(3)]), "the leader does not answer");
        let later = row(2, Role::Follower, 3, Some(1));
        assert!(none(&[leads, later, silent(3)]), "a leader of another term");
        let unreachable = leader(&[silent(1), silent(2), silent(3)]);
        assert!(matches!(unreachable, Err(StatusError::Unreachable { brokers: 3, .. })));
    }

    #[test]
    fn json_has_the_promised_fields() {
        let json = serde_json::to_value(Brokers { brokers: &[row(1, Role::Leader, 2, Some(1)), silent(2)] })
            .unwrap();
        let expected = serde_json::json!({ "brokers": [
            { "id": 1, "address": "127.0.0.1:7401", "role": "leader", "term": 2, "leader": 1, "last_index": 12,
              "commit": 11, "applied": 10, "end_offset": 9, "is_full": false, "reachable": true,
              "counters": {
                  "log_syncs": 0, "vote_syncs": 0, "blocks": 0, "block_bytes": 0, "proposals": 0, "batches": 0,
                  "records": 0, "duplicates": 0, "elections_won": 0, "sends": 0, "datagrams_sent": 0, "bytes_sent": 0,
                  "receives": 0, "datagrams_received": 0, "bytes_received": 0,
              } },
            { "id": 2, "address": "127.0.0.1:7402", "role": null, "term": null, "leader": null, "last_index": null,
              "commit": null, "applied": null, "end_offset": null, "is_full": null, "reachable": false,
              "counters": null },
        ]});
        assert_eq!(json, expected);
    }

    #[test]
    fn the_table_has_a_line_for_each_broker() {
        let table = render(&[row(1, Role::Leader, 2, Some(1)), silent(2)]);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("leader") && table.contains("unreachable"), "{table}");
    }
}
