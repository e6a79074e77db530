//! Spells in which nothing happens but heartbeats: they are left out.
//!
//! Where one broker leads, all that run follow it, all of them have the same log, written and applied, and nobody wants
//! anything, the next second is like the last one. Then the world may be *skipped* to a later moment: the clocks of
//! all machines go on, and everything that is on its way is that much later. To a broker it is as if its machine had been
//! suspended, together with all others and the network: it has to stand that, and makes up for only a few of the
//! ticks that it missed. So an idle day costs nothing, and what depends on time is as it would be without: log time
//! goes on with the clocks, and a spell ends where the first session does.

use super::world::{Event, World};
use crate::core::Core;
use crate::core::time::Time;

/// Longest spell. It has no meaning but that sums of times stay far from their limits. Microseconds.
const SPELL_US_MAX: u64 = 1_000_000_000_000_000;

impl World {
    /// For how many microseconds nothing will happen of itself; `None` if something may at any time.
    pub(super) fn quiet_us(&self) -> Option<u64> {
        let is_regular = |event: &Event| {
            matches!(event, Event::Tick { .. } | Event::Spares { .. } | Event::Datagram { .. })
        };
        // The last condition is the dearest.
        let is_quiet = self.network.is_sound()
            && !self.is_muted()
            && self.agree()
            && self.events.values().all(is_regular);
        if !is_quiet {
            return None;
        }
        let until_expiry = |core: &Core, now| core.until_expiry(now).unwrap_or(SPELL_US_MAX);
        let running = self.machines.iter().filter_map(|machine| Some((machine, machine.core.as_ref()?)));
        let spell = running.map(|(machine, core)| until_expiry(core, machine.clock.read(self.now))).min()?;
        (spell > 0).then_some(spell.min(SPELL_US_MAX))
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
        let events = std::mem::take(&mut self.events);
        self.events = events.into_iter().map(|((at, tie), event)| ((at + by_us, tie), event)).collect();
        self.now = self.now.max(now);
    }
}
