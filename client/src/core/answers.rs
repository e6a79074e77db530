//! What each answer means: for the routing, and for whoever asked.
//!
//! ```text
//!   answer ─► the routing: who leads, who is alive, how far the log is
//!          └► its owner:   an opening, a batch, a question, a subscription
//! ```

use super::{
    Call, Event, Failure, ProducerKey, SubscriptionFailure, SubscriptionKey, Time, Transmit,
    keeping::Keeping,
    opening::Progress,
    producer::{News, Producer},
    session::{Owned, Owner, Session},
};
use crate::protocol::{BrokerId, Class, Delivery, HighWater, Offset, Refusal, RequestId, Response, Sequence};

impl Session {
    /// Takes the answer to an attempt, or a frame of a subscription.
    pub(super) fn answered(&mut self, now: Time, id: RequestId, owned: Owned, response: Response) {
        self.learn(now, owned, &response);
        match owned.owner {
            Owner::Opening(key) => self.opening_answered(now, key, id, response),
            Owner::Batch(key, first) => self.batch_answered(now, (key, first), id, owned, response),
            Owner::Seal(key) => self.seal_answered(now, key, id, response),
            Owner::KeepAlive(key) => self.keep_alive_answered(now, key, id, response),
            Owner::Call(call) => self.question_answered(now, call, id, response),
            Owner::Subscription(key) => self.subscription_answered(now, key, owned, id, response),
        }
    }

    fn batch_answered(
        &mut self,
        now: Time,
        (key, first): (ProducerKey, Sequence),
        id: RequestId,
        owned: Owned,
        response: Response,
    ) {
        if response.is_final() {
            self.owners.remove(&id);
        }
        self.routing.took(owned.sent_at.until(now));
        let mut news = News::default();
        if let Some(producer) = self.producers.get_mut(&key) {
            let routing = &mut self.routing;
            producer.answered(now, first, id, response, |pauses| routing.pause(pauses), &mut news);
        }
        self.publish(news);
    }

    fn seal_answered(&mut self, now: Time, key: ProducerKey, id: RequestId, response: Response) {
        self.owners.remove(&id);
        let mut news = News::default();
        if let Some(producer) = self.producers.get_mut(&key) {
            let routing = &mut self.routing;
            producer.seal_answered(now, id, response, |pauses| routing.pause(pauses), &mut news);
        }
        self.publish(news);
    }

    fn keep_alive_answered(&mut self, now: Time, key: ProducerKey, id: RequestId, response: Response) {
        self.owners.remove(&id);
        let Some(kept) = self.kept.get_mut(&key) else { return };
        match response {
            Response::Alive(_) => {
                let others: Vec<_> = kept.attempts.ids().filter(|other| *other != id).collect();
                kept.alive(now);
                self.forget(others);
            }
            Response::Refused(refusal)
                if refusal.class() == Class::Final && refusal != Refusal::DeadlinePassed =>
            {
                kept.over();
            }
            _ => {
                kept.attempts.close(id);
                let pause = self.routing.pause(kept.attempts.pauses());
                kept.attempts.pause(now, pause);
            }
        }
    }

    /// What an answer says about where to send, and about how far the log is.
    fn learn(&mut self, now: Time, owned: Owned, response: &Response) {
        match response {
            Response::Refused(Refusal::NotLeader { leader }) => {
                self.routing.turn_away(now, owned.turn, *leader);
            }
            Response::Refused(refusal) => match refusal.class() {
                Class::Elsewhere | Class::Unknown => self.routing.turn_away(now, owned.turn, None),
                Class::Later => {}
                Class::Final => self.routing.confirm(owned.turn),
            },
            Response::Appended(appended) => self.saw(owned.broker, appended.end),
            Response::End(end) => self.saw(owned.broker, end.end),
            _ => self.routing.succeeded(owned.broker),
        }
    }

    fn saw(&mut self, broker: BrokerId, end: Offset) {
        self.routing.succeeded(broker);
        let Some(lineage) = self.lineage else { return };
        let seen = self.seen.get_or_insert(HighWater { lineage, ..HighWater::default() });
        seen.end = seen.end.max(end);
    }

    fn opening_answered(&mut self, now: Time, key: ProducerKey, id: RequestId, response: Response) {
        self.owners.remove(&id);
        let Some(opening) = self.openings.get_mut(&key) else { return };
        match opening.answered(id, response) {
            Progress::Goes { pause: false } => {}
            Progress::Goes { pause: true } => {
                let pause = self.routing.pause(opening.attempts.pauses());
                opening.attempts.pause(now, pause);
            }
            Progress::Opened(state) => {
                let (style, ttl) = (opening.style, opening.ttl());
                self.end_opening(key);
                if let Some(ttl) = ttl {
                    self.kept.insert(key, Keeping::new(state.id, ttl, now));
                }
                self.producers.insert(key, Producer::new(key, &state, style));
                self.events.push_back(Event::Opened { producer: key, state });
            }
            Progress::Failed(why) => {
                self.end_opening(key);
                self.events.push_back(Event::OpenFailed { producer: key, why });
            }
        }
    }

    fn end_opening(&mut self, key: ProducerKey) {
        let ids = self.openings.remove(&key).map(|opening| opening.attempts.ids().collect::<Vec<_>>());
        self.forget(ids.into_iter().flatten());
    }

    fn question_answered(&mut self, now: Time, call: Call, id: RequestId, response: Response) {
        self.owners.remove(&id);
        let Some(question) = self.questions.get_mut(&call) else { return };
        match &response {
            Response::Refused(refusal) if refusal.class() == Class::Unknown => question.attempts.lose(id),
            _ => question.attempts.close(id),
        }
        let event = match response {
            Response::Found(state) => Event::Found { call, state: Some(state) },
            Response::Refused(Refusal::UnknownProducer) => Event::Found { call, state: None },
            Response::End(end) => Event::EndIs { call, end },
            Response::Status(status) => Event::StatusIs { call, status },
            Response::Listed(listed) => Event::Listed { call, listed },
            Response::Resolved(resolved) => Event::Resolved { call, resolved },
            Response::Retired(retired) => Event::Retired { call, retired },
            Response::Refused(refusal) if refusal.class() == Class::Final => {
                Event::CallFailed { call, why: Failure::Refused(refusal) }
            }
            Response::Refused(refusal) => {
                let pause = self.routing.pause(question.attempts.pauses());
                if refusal.class() == Class::Later || question.broker.is_some() {
                    question.attempts.pause(now, pause);
                }
                return question.attempts.refused(refusal);
            }
            _ => {
                let pause = self.routing.pause(question.attempts.pauses());
                return question.attempts.pause(now, pause);
            }
        };
        let ids: Vec<_> = question.attempts.ids().collect();
        self.questions.remove(&call);
        self.forget(ids);
        self.events.push_back(event);
    }

    fn subscription_answered(
        &mut self,
        now: Time,
        subscription: SubscriptionKey,
        owned: Owned,
        id: RequestId,
        response: Response,
    ) {
        let Some(consumer) = self.consumers.get_mut(&subscription) else { return };
        match response {
            Response::Delivery(delivery) => {
                let (batches, sound) = consumer.delivered(&delivery);
                let Delivery { names, end, .. } = delivery;
                let doubt = sound.err().map(|unsound| consumer.doubt(owned.broker, unsound));
                if doubt.is_none() || !batches.is_empty() {
                    self.events.push_back(Event::Records { subscription, batches, names, end });
                }
                match doubt {
                    None => {}
                    Some(Ok(())) => {
                        self.routing.disconnected(now, owned.broker);
                        self.give_up(now, owned.broker);
                    }
                    Some(Err(why)) => {
                        self.transmits.push_back(Transmit::Unsubscribe { broker: owned.broker, id });
                        self.end_subscription(subscription, id, why);
                    }
                }
            }
            Response::Refused(refusal) if refusal.class() == Class::Final => {
                self.end_subscription(subscription, id, SubscriptionFailure::Refused(refusal));
            }
            Response::End(_) => {} // the broker agrees: deliveries follow
            _ => self.subscription_closed(now, subscription, id),
        }
    }

    fn end_subscription(&mut self, subscription: SubscriptionKey, id: RequestId, why: SubscriptionFailure) {
        self.owners.remove(&id);
        self.consumers.remove(&subscription);
        self.events.push_back(Event::SubscriptionEnded { subscription, why });
    }

    pub(super) fn subscription_closed(&mut self, now: Time, subscription: SubscriptionKey, id: RequestId) {
        self.owners.remove(&id);
        if let Some(consumer) = self.consumers.get_mut(&subscription)
            && consumer.closed(id)
        {
            let pause = self.routing.pause(consumer.attempts.pauses());
            consumer.attempts.pause(now, pause);
        }
    }
}
