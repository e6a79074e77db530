//! One direction between two ends: whether, when and how often something arrives.
//!
//! Each link draws its lots from a stream of its own, so what happens on one does not depend on how busy another is.
//! What is not overtaken on purpose arrives in order. What a link holds is bounded in bytes, as the queue of a router is:
//! what does not fit is lost.

use std::time::Instant;

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Conditions, End};

/// Most bytes that are on their way on one link: as much as one connection may have unacknowledged, so that a long way
/// alone loses nothing.
const ON_THEIR_WAY_BYTES_MAX: usize = 64 << 20;
/// What shares are counted in.
const THOUSAND: u32 = 1000;

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) from: End,
    pub(super) to: End,
}

impl Route {
    /// A number of its own for each route, to seed it with.
    fn number(self) -> u64 {
        let end = |end| match end {
            End::Clients => 0,
            End::Broker(id) => id.0,
        };
        end(self.from) << 32 | end(self.to)
    }
}

/// When something arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) due: Instant,
    /// It arrives once more.
    pub(super) again: Option<Instant>,
    /// What follows may overtake it.
    pub(super) reordered: bool,
}

/// Why something does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The link is cut, or it was drawn.
    Lost,
    /// Too much is on its way.
    Overflowed,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Link {
    rng: ChaCha8Rng,
    /// When the last thing that keeps the order arrives.
    last_due: Option<Instant>,
    /// Bytes on their way.
    bytes: usize,
}

impl Link {
    pub(super) fn new(seed: u64, route: Route) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(route.number());
        Self { rng, last_due: None, bytes: 0 }
    }

    /// Something of so many bytes begins its way.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        bytes: usize,
        conditions: &Conditions,
    ) -> Result<Arrival, Loss> {
        // All lots are drawn each time: what comes out for the tenth does not depend on what became of the ninth.
        let lots: [u32; 3] = std::array::from_fn(|_| self.rng.random_range(0..THOUSAND));
        let share = self.rng.next_u32();
        if conditions.cut || lots[0] < conditions.lost {
            return Err(Loss::Lost);
        }
        if self.bytes + bytes > ON_THEIR_WAY_BYTES_MAX {
            return Err(Loss::Overflowed);
        }
        let jitter = conditions.jitter.mul_f64(f64::from(share) / f64::from(u32::MAX));
        let in_order = (now + conditions.delay + jitter).max(self.last_due.unwrap_or(now));
        let reordered = lots[2] < conditions.reordered;
        let due = match reordered {
            true => in_order + conditions.held_back,
            false => *self.last_due.insert(in_order),
        };
        let again = (lots[1] < conditions.doubled).then(|| due + conditions.held_back);
        Ok(Arrival { due, again, reordered })
    }

    /// Something waits for its moment.
    pub(super) fn holds(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// It has arrived.
    pub(super) fn released(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sequor_client::protocol::BrokerId;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link(seed: u64, from: u64) -> Link {
        Link::new(seed, Route { from: End::Broker(BrokerId(from)), to: End::Clients })
    }

    /// What becomes of a hundred things, one each millisecond.
    fn fates(link: &mut Link, now: Instant, conditions: &Conditions) -> Vec<Result<Arrival, Loss>> {
        (0..100).map(|at| link.accept(now + MS * at, 100, conditions)).collect()
    }

    #[test]
    fn a_good_link_does_nothing() {
        let now = Instant::now();
        let arrival = link(1, 1).accept(now, 100, &Conditions::default());
        assert_eq!(arrival, Ok(Arrival { due: now, again: None, reordered: false }));
    }

    #[test]
    fn the_same_seed_draws_the_same_and_each_link_its_own() {
        let now = Instant::now();
        let bad = Conditions {
            lost: 200,
            doubled: 200,
            reordered: 200,
            held_back: MS * 5,
            jitter: MS * 9,
            ..Conditions::default()
        };
        let first = fates(&mut link(7, 1), now, &bad);
        assert_eq!(first, fates(&mut link(7, 1), now, &bad));
        assert_ne!(first, fates(&mut link(8, 1), now, &bad));
        assert_ne!(first, fates(&mut link(7, 2), now, &bad));
        let lost = first.iter().filter(|fate| **fate == Err(Loss::Lost)).count();
        let doubled = first.iter().flatten().filter(|arrival| arrival.again.is_some()).count();
        let reordered = first.iter().flatten().filter(|arrival| arrival.reordered).count();
        assert!(
            [lost, doubled, reordered].iter().all(|count| (5..50).contains(count)),
            "{lost} {doubled} {reordered}"
        );
    }

    #[test]
    fn jitter_keeps_the_order_and_the_delay() {
        let now = Instant::now();
        let slow = Conditions { delay: MS * 20, jitter: MS * 10, ..Conditions::default() };
        let dues: Vec<_> =
            fates(&mut link(3, 1), now, &slow).into_iter().map(|fate| fate.unwrap().due).collect();
        assert!(dues.is_sorted());
        assert!((0..).zip(&dues).all(|(at, due)| (MS * 20..MS * 31).contains(&(*due - (now + MS * at)))));
    }

    #[test]
    fn what_is_held_back_is_overtaken() {
        let now = Instant::now();
        let mut link = link(3, 1);
        let all = Conditions { reordered: 1000, held_back: MS * 10, ..Conditions::default() };
        let late = link.accept(now, 1, &all).unwrap();
        let next = link.accept(now + MS, 1, &Conditions::default()).unwrap();
        assert!(late.reordered && late.due > next.due);
    }

    #[test]
    fn nothing_passes_a_cut_and_not_more_than_fits() {
        let now = Instant::now();
        let mut link = link(1, 1);
        assert_eq!(link.accept(now, 1, &Conditions::CUT), Err(Loss::Lost));
        link.holds(ON_THEIR_WAY_BYTES_MAX);
        assert_eq!(link.accept(now, 1, &Conditions::default()), Err(Loss::Overflowed));
        link.released(1);
        assert!(link.accept(now, 1, &Conditions::default()).is_ok());
    }
}
