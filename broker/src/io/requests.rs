//! One stream of requests: the reader hands them to the core, the writer takes the answers back, in any order.

use std::{pin::pin, rc::Rc};

use quinn::SendStream;
use sequor_client::protocol::{Feature, Refusal, Request, Response, StreamKind, frame::RawFrame};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    broker::{Broker, Mailbox},
    client_stream::{Frames, StreamError},
    close::Close,
    exchange::{AnswerError, Exchange},
    limits::{CONTROL_IN_FLIGHT_REQUESTS_MAX, LAST_ANSWERS_TIMEOUT, STREAM_IN_FLIGHT_REQUESTS_MAX},
};
use crate::core::{Caller, SessionId};

/// Why a stream of requests ended before the client ended it.
#[derive(Debug, Error)]
pub(super) enum RequestsError {
    /// Reading failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Writing failed.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// Serves a control or a request stream until either side ends it.
pub(super) async fn serve(
    broker: &Rc<Broker>,
    kind: StreamKind,
    frames: Frames,
    mut send: SendStream,
) -> Result<(), RequestsError> {
    let served = converse(broker, kind, frames, &mut send).await;
    if let Err(error) = &served {
        // What is in flight is unknown to the client from here on; the number says whose fault it was.
        let _over = send.reset(fault(error).code());
    }
    served
}

async fn converse(
    broker: &Rc<Broker>,
    kind: StreamKind,
    mut frames: Frames,
    send: &mut SendStream,
) -> Result<(), RequestsError> {
    let requests_max = match kind {
        StreamKind::Control => CONTROL_IN_FLIGHT_REQUESTS_MAX,
        StreamKind::Requests | StreamKind::Subscription => STREAM_IN_FLIGHT_REQUESTS_MAX,
    };
    let exchange = Exchange::new(broker.budget(kind), requests_max);
    let mailbox = broker.register(Mailbox::Exchange(kind, Rc::clone(&exchange)));
    let mut writer = pin!(exchange.write(send));
    let read = async {
        let reader = Reader { broker, exchange: &exchange, session: mailbox.session(), kind };
        let read = reader.read(&mut frames).await;
        if let Err(error) = &read {
            frames.stop(if matches!(error, StreamError::Read(_)) { Close::Done } else { Close::Protocol });
        }
        read
    };
    tokio::select! {
        biased;
        ended = &mut writer => match ended? {},
        read = read => read?,
    }
    // The client asks no more. What it asked is still answered.
    tokio::select! {
        biased;
        ended = &mut writer => match ended? {},
        answered = timeout(LAST_ANSWERS_TIMEOUT, exchange.answered()) => {
            answered.map_err(|_| StreamError::Silent(LAST_ANSWERS_TIMEOUT))?;
        }
    }
    Ok(())
}

/// The half of a stream that asks.
struct Reader<'a> {
    broker: &'a Rc<Broker>,
    exchange: &'a Rc<Exchange>,
    session: SessionId,
    kind: StreamKind,
}

impl Reader<'_> {
    /// Reads requests until the client asks no more.
    async fn read(&self, frames: &mut Frames) -> Result<(), StreamError> {
        loop {
            self.exchange.room().await;
            let Some(frame) = frames.next().await? else { return Ok(()) };
            self.take(frame)?;
        }
    }

    fn take(&self, frame: RawFrame) -> Result<(), StreamError> {
        let id = frame.id;
        if !self.exchange.ask(id, frame.body.len() + frame.payload.len()) {
            return Err(StreamError::IdInUse(id));
        }
        let allowed = match frame.request() {
            Ok((_, context, request)) => self.check_place(&request).map(|()| (context, request)),
            Err((_, refusal)) => Err(refusal),
        };
        match allowed {
            Ok((context, request)) => {
                self.broker.handle_request(Caller { session: self.session, id }, &context, request);
            }
            Err(refusal) => self.exchange.answer(id, &Response::Refused(refusal)),
        }
        Ok(())
    }

    /// A stream carries only what belongs on it, so that no megabyte ever stands before a keep-alive.
    fn check_place(&self, request: &Request) -> Result<(), Refusal> {
        let fits = match request {
            Request::Subscribe(_) => false,
            Request::Open(_)
            | Request::OpenSession(_)
            | Request::Append(_)
            | Request::Retire(_)
            | Request::List(_) => self.kind == StreamKind::Requests,
            Request::Lookup(_)
            | Request::Resolve(_)
            | Request::End
            | Request::Status
            | Request::KeepAlive(_) => true,
        };
        if fits { Ok(()) } else { Err(Refusal::Unsupported { what: Feature::Stream(self.kind as u8) }) }
    }
}

fn fault(error: &RequestsError) -> Close {
    match error {
        RequestsError::Stream(error) => error.close(),
        RequestsError::Answer(AnswerError::Write(_)) => Close::Done,
        RequestsError::Answer(AnswerError::TooSlow) => Close::TooSlow,
    }
}
