//! Spells in which nothing happens but heartbeats: they are left out.
//!
//! Where one broker leads, all that run follow it, all of them have the same log, written and applied, and nobody wants
//! anything, the next second is like the last one, until something else arrives. Then the world may be *skipped* to a
//! later moment: the clocks of all machines go on, and ticks and heartbeats are that much later. To a broker it is as if
//! its machine had been suspended, together with all others and the network between them: it has to stand that, and makes
//! up for only a few of the ticks that it missed. So an idle day costs nothing, and what depends on time is as it would
//! be without: log time goes on with the clocks, and a spell ends where the first session does.

use super::machine::Machine;
use super::world::{Event, World};
use crate::core::Core;
use crate::core::time::Time;

/// Longest spell. It has no meaning but that sums of times stay far from their limits. Microseconds.
const SPELL_US_MAX: u64 = 1_000_000_000_000_000;
/// Shortest spell: what is shorter is not worth it. Microseconds.
const SPELL_US_MIN: u64 = 50_000;

/// Whether something happens all the time, and means nothing when nothing else happens.
fn is_regular(event: &Event) -> bool {
    matches!(event, Event::Tick { .. } | Event::Spares { .. } | Event::Datagram { .. })
}

impl World {
    /// For how many microseconds nothing will happen but heartbeats; `None` if something else may at any time.
    pub(super) fn quiet_us(&self) -> Option<u64> {
        if !self.network.is_sound() || self.is_muted() || !self.agree() {
            return None;
        }
        let leads = |machine: &&Machine| machine.core.as_ref().is_some_and(Core::leads);
        let leader = self.machines.iter().find(leads)?;
        let until_expiry = leader.core.as_ref()?.until_expiry(leader.clock.read(self.now));
        let mut others = self.events.iter().filter(|(_, event)| !is_regular(event));
        let until_other = others.next().map(|((at, _), _)| at.since(self.now));
        let spell = [until_expiry, until_other].into_iter().flatten().fold(SPELL_US_MAX, u64::min);
        (spell >= SPELL_US_MIN).then_some(spell)
    }

    /// Whether one broker leads, a majority runs, and all that run follow it and have what it has.
    fn agree(&self) -> bool {
        let running: Vec<&Core> = self.machines.iter().filter_map(|machine| machine.core.as_ref()).collect();
        let Some(leader) = running.iter().find(|core| core.leads()) else { return false };
        let (own, last) = (leader.status(), leader.log().last());
        let follows = |core: &&Core| {
            core.leader() == own.leader
                && core.status().term == own.term
                && core.status().commit == own.commit
                && core.log().last() == last
                && core.is_idle()
        };
        running.len() * 2 > self.machines.len()
            && running.iter().all(follows)
            && !self.machines.iter().any(|machine| machine.paused || machine.is_writing())
    }

    /// Leaves out the time until `now`, in a quiet spell.
    pub(super) fn skip(&mut self, now: Time) {
        let by_us = now.since(self.now);
        let later = |((at, tie), event)| match is_regular(&event) {
            true => ((at + by_us, tie), event),
            false => ((at, tie), event),
        };
        self.events = std::mem::take(&mut self.events).into_iter().map(later).collect();
        self.now = self.now.max(now);
    }
}
