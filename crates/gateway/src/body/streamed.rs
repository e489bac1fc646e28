use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use telemetry::Stage;

use crate::exchange::Exchange;
use crate::flow::Flow;
use crate::relay::Cut;

/// A part of an answer that is made while it is sent.
#[derive(Debug)]
pub(crate) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Whom the first request is for, for the record.
    Model(String),
    /// What the client was told went wrong, for the record.
    Failed(String),
}

/// An answer that a model of this process makes part by part.
#[derive(Debug)]
pub(crate) struct Streamed {
    flow: Flow<Part>,
    /// Whether the last part is still on its way to the client.
    sending: bool,
    ended: bool,
}

impl Streamed {
    pub(crate) fn new(flow: Flow<Part>) -> Self {
        Self {
            flow,
            sending: true,
            ended: false,
        }
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if std::mem::take(&mut self.sending) {
            exchange.mark(Stage::Send);
        }
        exchange.doing = Stage::Infer;
        let frame = loop {
            break match std::task::ready!(self.flow.poll_next(cx)) {
                Some(Part::Model(model)) => {
                    exchange.model = model;
                    continue;
                }
                Some(Part::Failed(message)) => {
                    exchange.error = Some(message);
                    continue;
                }
                Some(Part::Data(bytes)) => Some(Ok(Frame::data(bytes))),
                Some(Part::Trailers(trailers)) => {
                    // hyper asks no further.
                    exchange.complete = true;
                    Some(Ok(Frame::trailers(trailers)))
                }
                None if self.flow.broken() => {
                    let message = "the server failed at this request, which is a bug of the server";
                    exchange.error = Some(message.to_owned());
                    self.ended = true;
                    Some(Err(Cut::new(message)))
                }
                None => {
                    self.ended = true;
                    exchange.complete = true;
                    None
                }
            };
        };
        exchange.mark(Stage::Infer);
        exchange.doing = Stage::Send;
        self.sending = true;
        Poll::Ready(frame)
    }
}
