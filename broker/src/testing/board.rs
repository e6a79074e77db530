//! What each broker says of itself, where all who wait for something can see it.
//!
//! A broker writes here after each of its passes, from its own thread. So a test waits for the thing itself and not for
//! time to pass, and learns of it also from a broker whose network is lost.

use std::{collections::BTreeMap, sync::Arc};

use sequor_client::protocol::{BrokerId, Role, Status};
use tokio::sync::watch;

use crate::io::ServeError;

/// How a broker is.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// It reads its log.
    Opening,
    /// It serves.
    Serving(Status),
    /// Its thread has ended: as it was told, or by itself.
    Ended(Result<(), Arc<ServeError>>),
}

/// The states of all brokers whose threads have not been cleared away.
pub(super) type States = BTreeMap<BrokerId, State>;

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Board(watch::Sender<States>);

impl Board {
    /// Notes how a broker is.
    pub(super) fn set(&self, id: BrokerId, state: State) {
        self.0.send_modify(|states| {
            states.insert(id, state);
        });
    }

    /// Notes what a serving broker says, if it is news.
    pub(super) fn observe(&self, status: &Status) {
        self.0.send_if_modified(|states| {
            let new = !matches!(states.get(&status.id), Some(State::Serving(known)) if known == status);
            if new {
                states.insert(status.id, State::Serving(status.clone()));
            }
            new
        });
    }

    /// Forgets a broker.
    pub(super) fn clear(&self, id: BrokerId) {
        self.0.send_modify(|states| {
            states.remove(&id);
        });
    }

    /// How a broker is; none if it is not there.
    pub(super) fn state(&self, id: BrokerId) -> Option<State> {
        self.0.borrow().get(&id).cloned()
    }

    /// Everything, and every change of it.
    pub(super) fn watch(&self) -> watch::Receiver<States> {
        self.0.subscribe()
    }
}

/// What those that serve say.
pub(super) fn statuses(states: &States) -> BTreeMap<BrokerId, Status> {
    let serving = states.iter().filter_map(|(id, state)| match state {
        State::Serving(status) => Some((*id, status.clone())),
        State::Opening | State::Ended(_) => None,
    });
    serving.collect()
}

/// What all of them say, for a message to people.
pub(super) fn describe(states: &States) -> String {
    let describe = |(id, state): (&BrokerId, &State)| match state {
        State::Opening => format!("broker {id} reads its log"),
        State::Serving(Status { role, term, leader, commit, end, .. }) => {
            let leader = leader.map_or_else(|| "nobody".to_owned(), |leader| leader.to_string());
            format!(
                "broker {id} is {role:?} in term {term}, follows {leader}, has commit {commit} and end {end}"
            )
        }
        State::Ended(_) => format!("broker {id} has ended"),
    };
    let all: Vec<_> = states.iter().map(describe).collect();
    if all.is_empty() { "none of them runs".to_owned() } else { all.join("; ") }
}

/// A broker that has ended although nobody told it to.
pub(super) fn failure(states: &States) -> Option<(BrokerId, Arc<ServeError>)> {
    states.iter().find_map(|(id, state)| match state {
        State::Ended(Err(error)) => Some((*id, Arc::clone(error))),
        _ => None,
    })
}

/// The broker that leads, and that a majority of `members` brokers follows: one that nobody hears any more may think
/// for a while that it does.
pub(super) fn leader(
    statuses: &BTreeMap<BrokerId, Status>,
    members: usize,
    connects: impl Fn(BrokerId, BrokerId) -> bool,
) -> Option<BrokerId> {
    let followers = |leader: &Status| {
        let follows = |status: &&Status| {
            status.leader == Some(leader.id) && status.term == leader.term && connects(leader.id, status.id)
        };
        statuses.values().filter(follows).count()
    };
    let leaders = statuses.values().filter(|status| status.role == Role::Leader);
    let followed = leaders.filter(|leader| followers(leader) * 2 > members);
    followed.max_by_key(|leader| leader.term).map(|leader| leader.id)
}

#[cfg(test)]
mod tests {
    use sequor_client::protocol::{Counters, Offset};

    use super::*;

    fn status(id: u64, role: Role, term: u64, leader: u64) -> (BrokerId, Status) {
        let status = Status {
            id: BrokerId(id),
            role,
            term,
            leader: Some(BrokerId(leader)),
            last_index: 0,
            commit: 0,
            applied: 0,
            end: Offset(0),
            is_full: false,
            counters: Counters::default(),
        };
        (BrokerId(id), status)
    }

    #[test]
    fn a_leader_is_one_that_a_majority_follows() {
        let statuses =
            [status(1, Role::Leader, 1, 1), status(2, Role::Leader, 2, 2), status(3, Role::Follower, 2, 2)];
        let statuses = BTreeMap::from(statuses);
        assert_eq!(leader(&statuses, 3, |_, _| true), Some(BrokerId(2)));
        assert_eq!(leader(&statuses, 3, |one, other| one == other), None, "nobody hears anybody");
        let dead = BTreeMap::from([status(2, Role::Follower, 1, 1), status(3, Role::Follower, 1, 1)]);
        assert_eq!(leader(&dead, 3, |_, _| true), None, "what they follow is gone");
    }
}
