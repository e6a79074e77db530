//! What may be sent now, to whom, and when to look again.
//!
//! Everything goes to the target of the routing, but for questions to one broker. Small things are sent as soon as
//! there is a connection. A producer sends one batch as a scout until the target is known to lead, and then its window.

use std::collections::BTreeMap;

use super::{
    Call, Time, Transmit,
    opening::Opening,
    producer::Producer,
    routing::Route,
    session::{Owned, Owner, Question, Session},
};
use crate::protocol::{BrokerId, Context, Request, RequestId, Subscribe, limits::DEADLINE_MS_MAX};

impl Session {
    /// Sends whatever may be sent now, and sets the alarm for the rest.
    pub(super) fn flush(&mut self, now: Time) {
        self.flush_questions_to_one(now);
        if let Some(route) = self.routing.route(now, &mut self.transmits) {
            self.flush_keep_alives(now, route);
            self.flush_openings(now, route);
            self.flush_questions(now, route);
            self.flush_producers(now, route);
            self.flush_subscriptions(now, route);
        }
        self.routing.stand_by(now, &mut self.transmits);
        self.wake = self.next_wake(now);
    }

    fn next_wake(&self, now: Time) -> Time {
        let wanted: Vec<_> = self.questions.values().filter_map(|question| question.broker).collect();
        let attempts = (self.openings.values().map(|opening| &opening.attempts))
            .chain(self.questions.values().map(|question| &question.attempts))
            .chain(self.consumers.values().map(|consumer| &consumer.attempts));
        let attempts = attempts.map(|attempts| attempts.wake(now)).min().unwrap_or(Time::NEVER);
        let kept = self.kept.values().map(|kept| kept.wake(now)).min().unwrap_or(Time::NEVER);
        let producers = self.producers.values().map(Producer::wake).min().unwrap_or(Time::NEVER);
        self.routing.wake(now, &wanted).min(attempts).min(kept).min(producers)
    }

    fn flush_keep_alives(&mut self, now: Time, route: Route) {
        for key in keys(&self.kept, |kept| kept.is_due(now, route.turn)) {
            let (request, deadline) = (self.kept[&key].request(), self.kept[&key].deadline(now));
            let id = self.send(now, route, Owner::KeepAlive(key), request, deadline);
            let give_up_at = self.give_up_at(now);
            if let Some(kept) = self.kept.get_mut(&key) {
                kept.attempts.sent(id, route, give_up_at);
            }
        }
    }

    fn flush_openings(&mut self, now: Time, route: Route) {
        let due = |opening: &Opening| opening.attempts.is_due(now, route.turn);
        for key in keys(&self.openings, due) {
            let opening = &self.openings[&key];
            let (request, deadline) = (opening.request(), opening.attempts.deadline());
            let id = self.send(now, route, Owner::Opening(key), request, deadline);
            let give_up_at = self.give_up_at(now);
            if let Some(opening) = self.openings.get_mut(&key) {
                opening.attempts.sent(id, route, give_up_at);
            }
        }
    }

    fn flush_questions(&mut self, now: Time, route: Route) {
        let due = |asked: &Question| asked.broker.is_none() && asked.attempts.is_due(now, route.turn);
        for call in keys(&self.questions, due) {
            self.send_question(now, route, call);
        }
    }

    /// What is asked of one broker has a route of its own, without turns.
    fn flush_questions_to_one(&mut self, now: Time) {
        let due = |asked: &Question| asked.broker.is_some() && asked.attempts.is_due(now, 0);
        for call in keys(&self.questions, due) {
            if let Some(broker) = self.questions[&call].broker
                && self.routing.link(now, broker, &mut self.transmits)
            {
                self.send_question(now, Route { broker, turn: 0 }, call);
            }
        }
    }

    fn send_question(&mut self, now: Time, route: Route, call: Call) {
        let question = &self.questions[&call];
        let (request, deadline) = (question.request.clone(), question.attempts.deadline());
        let id = self.send(now, route, Owner::Call(call), request, deadline);
        let give_up_at = self.give_up_at(now);
        if let Some(question) = self.questions.get_mut(&call) {
            question.attempts.sent(id, route, give_up_at);
        }
    }

    fn flush_producers(&mut self, now: Time, route: Route) {
        let give_up_at = self.give_up_at(now);
        let mut producers = std::mem::take(&mut self.producers);
        for (key, producer) in &mut producers {
            if let Some((request, deadline)) = producer.seal_to_send(now, route.turn) {
                let id = self.send(now, route, Owner::Seal(*key), request, deadline);
                producer.seal_sent(id, route, give_up_at);
            }
            while let Some((request, deadline)) = producer.next_to_send(now, route.turn) {
                if !self.routing.is_confirmed() && producer.has_scout(route.turn) {
                    break;
                }
                let id = RequestId(self.last_id + 1);
                let first = producer.sent(id, route, give_up_at);
                let sent = self.send(now, route, Owner::Batch(*key, first), request, deadline);
                assert_eq!(sent, id, "ids are given in order");
            }
        }
        self.producers = producers;
    }

    fn flush_subscriptions(&mut self, now: Time, route: Route) {
        if self.routing.is_confirmed() {
            self.leave_former_leaders(now, route.broker);
        }
        for key in keys(&self.consumers, |consumer| consumer.wants_stream(now, route.turn)) {
            let id = self.own(now, route, Owner::Subscription(key));
            let context = self.context(now, Time::NEVER);
            if let Some(consumer) = self.consumers.get_mut(&key) {
                consumer.opened(id, route.broker);
                let subscribe = Subscribe { from: consumer.position() };
                let broker = route.broker;
                self.transmits.push_back(Transmit::Subscribe { broker, id, context, subscribe });
            }
        }
    }

    /// Streams of others than the leader are given up: one that is dead may take long to be known as such.
    fn leave_former_leaders(&mut self, now: Time, leader: BrokerId) {
        let streams = self.consumers.iter().filter_map(|(key, consumer)| Some((*key, consumer.stream()?)));
        let left: Vec<_> = streams.filter(|(_, (_, broker))| *broker != leader).collect();
        for (key, (id, broker)) in left {
            self.transmits.push_back(Transmit::Unsubscribe { broker, id });
            self.subscription_closed(now, key, id);
        }
    }

    fn send(&mut self, now: Time, route: Route, owner: Owner, request: Request, deadline: Time) -> RequestId {
        let id = self.own(now, route, owner);
        let (broker, context) = (route.broker, self.context(now, deadline));
        self.transmits.push_back(Transmit::Request { broker, id, context, request });
        id
    }

    fn own(&mut self, now: Time, route: Route, owner: Owner) -> RequestId {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        let owned = Owned { owner, broker: route.broker, turn: route.turn, sent_at: now };
        self.owners.insert(id, owned);
        id
    }

    fn give_up_at(&self, now: Time) -> Time {
        now.after(self.routing.patience(self.config.attempt_timeout))
    }

    fn context(&self, now: Time, deadline: Time) -> Context {
        let left = u32::try_from(now.until(deadline).as_millis()).unwrap_or(u32::MAX);
        Context { deadline_ms: left.clamp(1, DEADLINE_MS_MAX), seen: self.seen, ..Context::default() }
    }
}

/// The keys of what meets a condition.
fn keys<K: Copy + Ord, V>(map: &BTreeMap<K, V>, meets: impl Fn(&V) -> bool) -> Vec<K> {
    map.iter().filter(|(_, value)| meets(value)).map(|(key, _)| *key).collect()
}
