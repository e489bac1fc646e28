//! Answers every call with what it was asked, after so many milliseconds: `tonic-echo PORT DELAY-MS`.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use grpc_bench::Raw;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower_service::Service;

#[derive(Debug, Clone, Copy)]
struct Echo {
    delay: Duration,
}

impl NamedService for Echo {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Boxed<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let delay = self.delay;
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            Ok(Response::new(request.into_inner()))
        })
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = *self;
        Box::pin(async move { Ok(Grpc::new(Raw).unary(echo, request).await) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [port, delay] = args.as_slice() else {
        return Err("tonic-echo PORT DELAY-MS".into());
    };
    let echo = Echo {
        delay: Duration::from_millis(delay.parse()?),
    };
    tonic::transport::Server::builder()
        .add_service(echo)
        .serve(([127, 0, 0, 1], port.parse()?).into())
        .await?;
    Ok(())
}
