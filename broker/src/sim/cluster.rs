//! The brokers in their world: when each of them works, what reaches it, and what befalls it.

use std::error::Error;

use bytes::Bytes;
use sequor_client::protocol::BrokerId;

use super::chance::{chance, within};
use super::faults::Fault;
use super::judge::{Violation, check_matching, violated};
use super::machine::{Death, Machine};
use super::network::Node;
use super::world::{Event, World};

use crate::core::time::Time;
use crate::core::{Core, Halt, PeerMessage};

/// A pass begins at most this long after the event that asks for it, so that events gather as they do in reality.
const PASS_WITHIN_US: u64 = 60;
/// How long the helper thread takes for the segments that were ordered.
const SPARES_US: (u64, u64) = (200, 5_000);
/// How long a broker that was told to stop waits for another one to lead, and then for its disk.
const HAND_OVER_US: (u64, u64) = (0, 500_000);
const LAST_SYNC_US: u64 = 20_000;

impl World {
    pub(super) fn machine(&mut self, broker: u64) -> &mut Machine {
        &mut self.machines[slot(broker)]
    }

    /// The machine, if it is still in that life.
    fn alive(&mut self, broker: u64, life: u64) -> Option<&mut Machine> {
        Some(self.machine(broker)).filter(|machine| machine.life == life && machine.core.is_some())
    }

    /// The core of a broker, if it runs.
    pub(super) fn core(&mut self, broker: u64) -> Option<&mut Core> {
        self.machine(broker).core.as_mut()
    }

    /// True if a broker runs and gets time.
    pub(super) fn is_awake(&mut self, broker: u64) -> bool {
        self.machine(broker).is_awake()
    }

    /// What a broker's clock shows.
    pub(super) fn time_at(&self, broker: u64) -> Time {
        self.machines[slot(broker)].clock.read(self.now)
    }

    pub(super) fn start(&mut self, broker: u64) -> Result<(), Violation> {
        let machine = &mut self.machines[slot(broker)];
        if machine.core.is_some() || machine.lost || self.losses.keep_away(broker) {
            return Ok(());
        }
        match machine.start(&mut self.random, self.now) {
            Ok(()) if !machine.is_whole() => {
                return violated(format!("broker {broker} starts on damage that it has not noticed"));
            }
            Ok(()) if !machine.struck().is_empty() => self.reached.note("found no damage in rot"),
            Ok(()) => {}
            Err(_) if machine.disk_is_down() => {
                self.reached.note("disk error at a start");
                return self.end_by_disk(broker);
            }
            Err(error) if machine.struck().excuses(error.blames()) => {
                self.reached.note("found damage and refused to start");
                machine.lost = true;
                return Ok(());
            }
            Err(error) => {
                let struck = machine.struck();
                return violated(format!("broker {broker} refuses to start, with {struck}: {error}"));
            }
        }
        let machine = &self.machines[slot(broker)];
        if let Some(core) = &machine.core {
            self.judge.restarted(broker, core, machine.synced(), &mut self.reached)?;
        }
        self.machine(broker).trust_vote();
        let life = self.machine(broker).life;
        self.after(0, Event::Tick { broker, life });
        self.request_pass(broker);
        Ok(())
    }

    pub(super) fn tick(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.alive(broker, life) else { return Ok(()) };
        let Some(core) = &mut machine.core else { return Ok(()) };
        core.handle_tick(machine.clock.read(now));
        let next = machine.clock.when(core.next_tick(), now);
        self.at(next, Event::Tick { broker, life });
        self.request_pass(broker);
        Ok(())
    }

    /// Lets a broker work soon; what arrives until then is worked on in the same pass.
    pub(super) fn request_pass(&mut self, broker: u64) {
        let machine = self.machine(broker);
        if machine.core.is_none() || machine.pass_due {
            return;
        }
        machine.pass_due = true;
        let life = machine.life;
        let wait = within(&mut self.random, (0, PASS_WITHIN_US));
        self.after(wait, Event::Pass { broker, life });
    }

    pub(super) fn pass(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.alive(broker, life) else { return Ok(()) };
        machine.pass_due = false;
        let (local, wall_ms) = (machine.clock.read(now), machine.clock.wall_ms(now));
        let Some(core) = &mut machine.core else { return Ok(()) };
        core.pass(local, wall_ms);
        match core.halted() {
            Some(Halt::LostEntries { .. } | Halt::OtherAcknowledged { .. } | Halt::OtherCommitted { .. })
                if machine.forgetful =>
            {
                return self.stop_for_loss(broker);
            }
            Some(halt) => return violated(format!("broker {broker} halted: {}", with_causes(halt))),
            None => {}
        }
        if core.wants_pass() {
            self.request_pass(broker);
        }
        self.collect(broker)
    }

    /// Carries out what a core wants after a pass.
    fn collect(&mut self, broker: u64) -> Result<(), Violation> {
        let machine = &mut self.machines[slot(broker)];
        let life = machine.life;
        let written_after = machine.begin_disk_work(&mut self.random, self.now);
        let Some(core) = &mut machine.core else { return Ok(()) };
        let messages: Vec<(BrokerId, PeerMessage)> = std::iter::from_fn(|| core.poll_peer()).collect();
        let replies: Vec<_> = std::iter::from_fn(|| core.poll_reply()).collect();
        let leads = core.poll_leads();
        if let Some(micros) = written_after {
            self.after(micros, Event::Written { broker, life });
        }
        if self.machine(broker).has_orders() {
            let spares = within(&mut self.random, SPARES_US);
            self.after(spares, Event::Spares { broker, life });
        }
        for (to, message) in messages {
            self.send_datagram(broker, to.0, &message);
        }
        for reply in replies {
            self.reached.note_response(&reply.response);
            self.send_reply(broker, &reply);
        }
        if let Some(leads) = leads {
            self.announce(broker, leads);
        }
        self.pump_subscriptions(broker);
        self.watch(broker)
    }

    fn watch(&mut self, broker: u64) -> Result<(), Violation> {
        let machine = &self.machines[slot(broker)];
        let Some(core) = &machine.core else { return Ok(()) };
        self.judge.watch(broker, core, &self.machines, &mut self.reached)?;
        // Which of the others it is compared with does not matter, as long as it changes.
        let all = self.machines.len();
        let other =
            &self.machines[(slot(broker) + 1 + self.summary.events as usize % (all - 1).max(1)) % all];
        other.core.as_ref().map_or(Ok(()), |other| check_matching(core.log(), other.log()))
    }

    pub(super) fn written(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        if self.alive(broker, life).is_none() {
            return Ok(());
        }
        match self.machines[slot(broker)].write(&mut self.random, self.now) {
            Ok(synced_after) => self.after(synced_after, Event::Synced { broker, life }),
            Err(_) => return self.end_by_disk(broker),
        }
        Ok(())
    }

    pub(super) fn synced(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.alive(broker, life) else { return Ok(()) };
        match machine.sync(now) {
            Ok(()) => self.request_pass(broker),
            Err(_) => return self.end_by_disk(broker),
        }
        Ok(())
    }

    pub(super) fn spares(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.alive(broker, life) else { return Ok(()) };
        match machine.make_spares(now) {
            Ok(true) => self.request_pass(broker),
            Ok(false) => {}
            Err(_) => return self.end_by_disk(broker),
        }
        if self.core(broker).is_some_and(|core| core.is_full()) {
            self.reached.note("disk full");
        }
        Ok(())
    }

    /// An error of the disk ends the process at once.
    fn end_by_disk(&mut self, broker: u64) -> Result<(), Violation> {
        if !self.machine(broker).disk_is_down() {
            return violated(format!("broker {broker} cannot use a disk that works"));
        }
        self.reached.note("disk error");
        let death = if chance(&mut self.random, 500) { Death::PowerCut } else { Death::Kill };
        let down_us = within(&mut self.random, (1_000, 1_000_000));
        self.bury(broker, death, Some(down_us));
        Ok(())
    }

    fn send_datagram(&mut self, from: u64, to: u64, message: &PeerMessage) {
        let bytes: Bytes = message.encode().concat().into();
        if self.network.is_full(self.now, from, to) {
            return self.reached.note("peer queue full");
        }
        for at in self.network.arrivals(&mut self.random, self.now, from, to) {
            self.at(at, Event::Datagram { from, to, bytes: bytes.clone() });
        }
    }

    pub(super) fn datagram(&mut self, from: u64, to: u64, bytes: Bytes) -> Result<(), Violation> {
        let now = self.time_at(to);
        let Some(core) = &mut self.machines[slot(to)].core else { return Ok(()) };
        let message = PeerMessage::decode(bytes)
            .map_err(|error| Violation(format!("broker {to} cannot read what {from} sent: {error}")))?;
        self.losses.counts(core, from, &message.raft);
        core.handle_peer(now, BrokerId(from), message);
        self.request_pass(to);
        Ok(())
    }

    /// A broker learns that its connection to a peer broke.
    pub(super) fn peer_lost(&mut self, broker: u64, peer: u64) -> Result<(), Violation> {
        if let Some(core) = self.core(broker) {
            core.handle_peer_lost(BrokerId(peer));
            self.request_pass(broker);
        }
        Ok(())
    }

    /// Lets something go wrong, or right again.
    pub(super) fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        self.losses.note(self.now, fault);
        if self.has_a_target(fault) {
            self.reached.note(fault.name());
        }
        match fault {
            Fault::Die { broker, death, down_us } => return self.die(broker, death, Some(down_us)),
            Fault::DieAll { death, down_us } => {
                for broker in self.brokers() {
                    self.die(broker, death, Some(down_us * broker))?;
                }
            }
            Fault::Stop { broker, down_us } => self.begin_to_stop(broker, Some(down_us)),
            Fault::Pause { broker, for_us } => self.pause(broker, for_us),
            Fault::Isolate { broker, inward, outward } => {
                for other in self.brokers().filter(|other| *other != broker) {
                    if inward {
                        self.network.cut(Node::Broker(other), Node::Broker(broker));
                    }
                    if outward {
                        self.network.cut(Node::Broker(broker), Node::Broker(other));
                    }
                }
            }
            Fault::CutLink { from, to } => self.network.cut(Node::Broker(from), Node::Broker(to)),
            Fault::BreakLink { from, to } => self.break_link(from, to),
            Fault::Heal => self.network.heal(),
            Fault::Change(weather) => self.network.weather = weather,
            Fault::Jump { broker, by_us } => {
                self.machines[slot(broker)].clock.jump(&mut self.random, by_us);
            }
            Fault::Fill { broker } => self.machine(broker).fill(true),
            Fault::Free => self.machines.iter().for_each(|machine| machine.fill(false)),
            Fault::FailDisk { broker } => self.machines[slot(broker)].fail_disk(&mut self.random),
            Fault::Hang { broker, for_us } => self.machine(broker).hangs_until = self.now + for_us,
            Fault::HangAll { for_us } => {
                let until = self.now + for_us;
                self.machines.iter_mut().for_each(|machine| machine.thaws_at = machine.thaws_at.max(until));
            }
            Fault::Rot { broker, down_us } => return self.rot(broker, down_us),
            Fault::Remember { broker } => self.remember(broker),
            Fault::Lose { broker, what, death, down_us } => {
                return self.lose_files(broker, what, death, down_us);
            }
            Fault::Reset { client } => self.reset_client(client),
            Fault::Storm { times } => self.storm(times),
            Fault::CutClient { client, broker, inward } => {
                let (from, to) = match inward {
                    true => (Node::Client(client), Node::Broker(broker)),
                    false => (Node::Broker(broker), Node::Client(client)),
                };
                self.network.cut(from, to);
            }
            Fault::Garble { client } => self.garble(client),
            Fault::Replace { client } => return self.replace_client(client),
            Fault::Zombie { client, for_us } => return self.make_zombie(client, for_us),
            Fault::Retire { client } => self.retire_producer(client),
            Fault::PauseClient { client, for_us } => self.pause_client(client, for_us),
            Fault::JumpClient { client, by_us } => self.jump_client(client, by_us),
        }
        Ok(())
    }

    /// Whether there is anybody whom a fault befalls.
    fn has_a_target(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Die { broker, .. }
            | Fault::Stop { broker, .. }
            | Fault::Jump { broker, .. }
            | Fault::FailDisk { broker }
            | Fault::Hang { broker, .. } => self.core(broker).is_some(),
            Fault::Pause { broker, .. } => self.is_awake(broker),
            Fault::DieAll { .. } | Fault::HangAll { .. } => {
                self.machines.iter().any(|machine| machine.core.is_some())
            }
            Fault::Isolate { .. } | Fault::CutLink { .. } | Fault::BreakLink { .. } => {
                self.machines.len() > 1
            }
            Fault::Reset { client } | Fault::Garble { client } => self.is_connected(client),
            Fault::Storm { .. } => (0..self.clients.len()).any(|client| self.is_connected(client)),
            Fault::Retire { client } => self.clients[client].has_open_name(self.now),
            Fault::Zombie { client, .. } => self.clients[client].has_no_heir(self.now),
            Fault::PauseClient { client, .. } => !self.clients[client].is_frozen(self.now),
            // That is known when it was tried.
            Fault::Rot { .. } | Fault::Lose { .. } => false,
            Fault::Heal
            | Fault::Change(_)
            | Fault::Fill { .. }
            | Fault::Free
            | Fault::Remember { .. }
            | Fault::CutClient { .. }
            | Fault::JumpClient { .. }
            | Fault::Replace { .. } => true,
        }
    }

    /// Whatever runs on a machine dies, and is started again after so many microseconds, or not by itself.
    pub(super) fn die(&mut self, broker: u64, death: Death, down_us: Option<u64>) -> Result<(), Violation> {
        if self.machine(broker).core.is_some() {
            self.bury(broker, death, down_us);
        }
        Ok(())
    }

    fn bury(&mut self, broker: u64, death: Death, down_us: Option<u64>) {
        self.reached.note(match death {
            Death::PowerCut => "power cut",
            Death::Kill => "process killed",
        });
        self.machines[slot(broker)].die(death, &mut self.random);
        self.held.remove(&broker);
        self.summary.deaths += 1;
        self.break_connections_of_broker(broker);
        for peer in self.brokers().filter(|peer| *peer != broker) {
            let noticed = within(&mut self.random, (0, 1_000_000));
            self.after(noticed, Event::PeerLost { broker: peer, peer: broker });
        }
        if let Some(down_us) = down_us {
            self.after(down_us, Event::Start { broker });
        }
    }

    /// Only as many disks may rot as leave a majority of good ones.
    fn rot(&mut self, broker: u64, down_us: u64) -> Result<(), Violation> {
        let rotten = self
            .machines
            .iter()
            .filter(|machine| !machine.struck().is_empty() && machine.id != broker)
            .count();
        if (rotten + 1) * 2 >= self.machines.len() {
            return Ok(());
        }
        self.die(broker, Death::Kill, Some(down_us))?;
        if self.machine(broker).core.is_none()
            && let Some(how) = self.machines[slot(broker)].rot(&mut self.random)
        {
            self.reached.note(Fault::Rot { broker, down_us }.name());
            self.reached.note(how);
        }
        Ok(())
    }

    /// What is between two brokers is lost, in both directions, and both hear of it sooner or later.
    fn break_link(&mut self, one: u64, other: u64) {
        let between = |from: u64, to: u64| (from, to) == (one, other) || (from, to) == (other, one);
        self.forget_events(|event| matches!(event, Event::Datagram { from, to, .. } if between(*from, *to)));
        self.network.forget(one, other);
        for (broker, peer) in [(one, other), (other, one)] {
            let noticed = within(&mut self.random, (0, 1_000_000));
            self.after(noticed, Event::PeerLost { broker, peer });
        }
    }

    /// A broker is told to stop; it is started again so many microseconds later, or not by itself.
    pub(super) fn begin_to_stop(&mut self, broker: u64, down_us: Option<u64>) {
        let local = self.machines[slot(broker)].clock.read(self.now);
        let Some(core) = self.core(broker) else { return };
        if core.leads() {
            core.hand_over(local);
            self.reached.note("handed over");
        }
        self.request_pass(broker);
        let life = self.machine(broker).life;
        let patience = within(&mut self.random, HAND_OVER_US);
        self.after(patience, Event::Drain { broker, life, down_us });
    }

    pub(super) fn drain(&mut self, broker: u64, life: u64, down_us: Option<u64>) -> Result<(), Violation> {
        if let Some(core) = self.alive(broker, life).and_then(|machine| machine.core.as_mut()) {
            core.prepare_to_stop();
            self.request_pass(broker);
            self.after(LAST_SYNC_US, Event::Stop { broker, life, down_us });
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, broker: u64, life: u64, down_us: Option<u64>) -> Result<(), Violation> {
        if self.alive(broker, life).is_none() {
            return Ok(());
        }
        self.die(broker, Death::Kill, down_us)
    }

    fn pause(&mut self, broker: u64, for_us: u64) {
        if !self.is_awake(broker) {
            return;
        }
        let machine = self.machine(broker);
        machine.paused = true;
        let life = machine.life;
        self.after(for_us, Event::Resume { broker, life });
    }

    pub(super) fn resume(&mut self, broker: u64) -> Result<(), Violation> {
        self.machine(broker).paused = false;
        for event in self.held.remove(&broker).unwrap_or_default() {
            self.dispatch(event)?;
        }
        Ok(())
    }
}

/// What an error says, and what it says of its causes.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Where the machine of a broker stands in the list: ids count from 1.
pub(super) fn slot(broker: u64) -> usize {
    usize::try_from(broker - 1).expect("an id fits a usize")
}
