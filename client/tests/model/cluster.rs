//! A cluster as simple as it can be: one list of batches, and what is known of producers.

use std::collections::BTreeMap;

use sequor_client::protocol::{
    Append, Appended, BrokerId, Delivery, End, Epoch, Instance, Offset, Placed, Producer, ProducerId,
    Refusal, Request, Resolve, Resolved, Response, Revision, Sequence, batch::Batch,
};

use crate::greeting::LINEAGE;

#[derive(Clone, Debug, Hash)]
pub(crate) struct Name {
    pub(crate) id: ProducerId,
    epoch: Epoch,
    instance: Instance,
    next: Sequence,
    /// Numbers below it are not remembered one by one.
    settled: Sequence,
    /// First and one past the last of each interval.
    pub(crate) sealed: Vec<(Sequence, Sequence)>,
}

/// The log and what is known of producers: changed by the leader alone, one request at a time.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) leader: Option<BrokerId>,
    pub(crate) names: BTreeMap<String, Name>,
    pub(crate) log: Vec<(Offset, Batch)>,
}

impl Cluster {
    pub(crate) fn end(&self) -> Offset {
        self.log.last().map_or(Offset(0), |(offset, batch)| offset.plus(batch.count().into()))
    }

    fn known(name: &Name) -> Producer {
        let Name { id, epoch, instance, next, .. } = name.clone();
        Producer { id, epoch, instance, next, batches: Vec::new(), sealed: Vec::new(), retired: false }
    }

    pub(crate) fn handle(&mut self, request: &Request) -> Response {
        match request {
            Request::Lookup(lookup) => match self.names.get(&lookup.name) {
                Some(name) => Response::Found(Self::known(name)),
                None => Response::Refused(Refusal::UnknownProducer),
            },
            Request::Open(open) => {
                let id = ProducerId(self.names.len() as u64 + 1);
                let (instance, epoch, next) = (Instance::default(), Epoch(0), Sequence(0));
                let at = self.end();
                let name = self.names.entry(open.name.clone()).or_insert(Name {
                    id,
                    epoch,
                    instance,
                    next,
                    settled: next,
                    sealed: Vec::new(),
                });
                if name.epoch == open.expected_epoch {
                    name.epoch = name.epoch.plus(1);
                    name.instance = open.instance;
                } else if name.instance != open.instance {
                    return Response::Refused(Refusal::Fenced { by: name.epoch, at, next: name.next });
                }
                Response::Opened(Self::known(name))
            }
            Request::Append(append) => self.append(append).unwrap_or_else(Response::Refused),
            Request::Resolve(resolve) => {
                self.resolve(resolve).map_or_else(Response::Refused, Response::Resolved)
            }
            Request::End => Response::End(End {
                first: Offset(0),
                end: self.end(),
                revision: Revision(0),
                lineage: LINEAGE,
            }),
            other => panic!("the model has no {other:?}"),
        }
    }

    fn resolve(&mut self, resolve: &Resolve) -> Result<Resolved, Refusal> {
        let at = self.end();
        let name = self.names.values_mut().find(|name| name.id == resolve.producer);
        let name = name.ok_or(Refusal::UnknownProducer)?;
        let sequence = resolve.sequence;
        if name.sealed.iter().any(|(first, end)| (first..end).contains(&&sequence)) {
            return Ok(Resolved::Sealed);
        }
        if sequence < name.next {
            let holds = |batch: &&(Offset, Batch)| {
                batch.1.producer() == resolve.producer
                    && (batch.1.first_sequence()..batch.1.end_sequence()).contains(&sequence)
            };
            let (offset, batch) = self.log.iter().find(holds).expect("it is written");
            return Ok(Resolved::Committed {
                offset: Some(offset.plus(sequence.0 - batch.first_sequence().0)),
            });
        }
        if name.epoch != resolve.epoch {
            return Err(Refusal::Fenced { by: name.epoch, at, next: name.next });
        }
        if !resolve.seal {
            return Ok(Resolved::Open);
        }
        name.sealed.push((name.next, sequence.plus(1)));
        name.next = sequence.plus(1);
        Ok(Resolved::Sealed)
    }

    /// In the order of checks that the real brokers have: the number first, then the epoch, then the gap.
    fn append(&mut self, append: &Append) -> Result<Response, Refusal> {
        let batch = Batch::parse(append.batch.clone())?;
        batch.check_records()?;
        let end = self.end();
        let name = self.names.values_mut().find(|name| name.id == batch.producer());
        let name = name.ok_or(Refusal::UnknownProducer)?;
        let dead = |(first, end): &&(Sequence, Sequence)| {
            *first < batch.end_sequence() && *end > batch.first_sequence()
        };
        if let Some((first, end)) = name.sealed.iter().find(dead) {
            return Err(Refusal::Sealed { first: *first, end: *end });
        }
        if batch.first_sequence() < name.settled {
            return Err(Refusal::AlreadyCommitted { next: name.next });
        }
        if name.epoch == batch.epoch() {
            name.settled = name.settled.max(append.settled.min(name.next));
        }
        let written = self.log.iter().find(|(_, old)| {
            old.producer() == batch.producer() && old.first_sequence() == batch.first_sequence()
        });
        if let Some((offset, old)) = written {
            if old.digest() != batch.digest() {
                return Err(Refusal::SequenceReused { first: old.first_sequence(), offset: *offset });
            }
            return Ok(appended(*offset, old.count(), true, end));
        }
        if name.epoch != batch.epoch() {
            return Err(Refusal::Fenced { by: name.epoch, at: end, next: name.next });
        }
        if batch.first_sequence() < name.next {
            return Err(Refusal::PartlyCommitted { up_to: name.next });
        }
        if name.next != batch.first_sequence() {
            return Err(Refusal::SequenceGap { expected: name.next, found: batch.first_sequence() });
        }
        name.next = batch.end_sequence();
        let count = batch.count();
        self.log.push((end, batch));
        Ok(appended(end, count, false, self.end()))
    }

    /// Up to three batches from the one that holds `from` on.
    pub(crate) fn read(&self, from: Offset) -> Option<Delivery> {
        let wanted = self.log.iter().filter(|(offset, batch)| offset.plus(batch.count().into()) > from);
        let batches: Vec<_> = wanted
            .take(3)
            .map(|(offset, batch)| Placed {
                offset: *offset,
                settled: Sequence(0),
                batch: batch.bytes().clone(),
            })
            .collect();
        let last = batches.last()?.offset;
        let next =
            self.log.iter().find(|(offset, _)| *offset > last).map_or(self.end(), |(offset, _)| *offset);
        let stretches = batches.iter().map(Placed::to_bytes).collect();
        Some(Delivery { next, end: self.end(), names: Vec::new(), stretches })
    }
}

fn appended(first: Offset, count: u32, duplicate: bool, end: Offset) -> Response {
    Response::Appended(Appended { first, count, duplicate, token: None, branch: None, end, rest: Vec::new() })
}
