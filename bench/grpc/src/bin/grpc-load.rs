//! Unary calls over many connections, on one thread. Says one line of JSON.
//!
//! ```text
//! grpc-load PORT MESSAGE-FILE CONNECTIONS open RATE SECONDS    so many a second, due at fixed moments
//! grpc-load PORT MESSAGE-FILE CONNECTIONS burst CALLS          all at one moment
//! ```
//!
//! An open loop's latency runs from the moment at which a call was due, so that a server that stalls does not slow the
//! questions down.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use grpc_bench::{PATH, Raw};
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const START_TIME_MAX: Duration = Duration::from_secs(30);

type Outcome = Result<Duration, Status>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let [port, file, connections, how @ ..] = args.as_slice() else {
        return Err("grpc-load PORT MESSAGE-FILE CONNECTIONS open|burst …".into());
    };
    let message = Bytes::from(std::fs::read(file)?);
    let mut channels = Vec::new();
    for _ in 0..connections.parse()? {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
            .tcp_nodelay(true)
            .initial_connection_window_size(8 << 20);
        channels.push(endpoint.connect().await?);
    }
    let mut first = JoinSet::new();
    for channel in &channels {
        first.spawn(answered(channel.clone(), message.clone()));
    }
    while let Some(ended) = first.join_next().await {
        ended??;
    }
    let started = Instant::now();
    let mut calls = JoinSet::new();
    match how {
        ["open", rate, seconds] => {
            let (rate, seconds): (u32, u32) = (rate.parse()?, seconds.parse()?);
            let total = rate * seconds;
            for (number, channel) in (0..total).zip(channels.iter().cycle()) {
                let due = started + Duration::from_secs(1) * number / rate;
                tokio::time::sleep_until(due).await;
                calls.spawn(call(channel.clone(), message.clone(), due));
            }
        }
        ["burst", count] => {
            for (_, channel) in (0..count.parse::<u32>()?).zip(channels.iter().cycle()) {
                calls.spawn(call(channel.clone(), message.clone(), started));
            }
        }
        _ => return Err("open RATE SECONDS, or burst CALLS".into()),
    }
    say(calls, started).await;
    Ok(())
}

/// Every connection is used once before it counts. A server may listen before its model is loaded.
async fn answered(channel: Channel, message: Bytes) -> Result<(), Status> {
    let patience = Instant::now() + START_TIME_MAX;
    while let Err(status) = call(channel.clone(), message.clone(), Instant::now()).await {
        if Instant::now() > patience {
            return Err(status);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn say(mut calls: JoinSet<Outcome>, started: Instant) {
    let (mut times, mut failed, mut why) = (Vec::new(), 0_u64, String::new());
    while let Some(ended) = calls.join_next().await {
        match ended {
            Ok(Ok(time)) => times.push(time),
            Ok(Err(status)) => {
                failed += 1;
                why = status.to_string();
            }
            Err(_) => failed += 1,
        }
    }
    if !why.is_empty() {
        eprintln!("{why}");
    }
    times.sort_unstable();
    let of = |percent: usize| {
        let index = times.len().saturating_sub(1) * percent / 100;
        times.get(index).map_or(0, Duration::as_micros)
    };
    println!(
        r#"{{"answered":{},"failed":{failed},"seconds":{},"p50_us":{},"p99_us":{}}}"#,
        times.len(),
        started.elapsed().as_secs_f64(),
        of(50),
        of(99),
    );
}

async fn call(channel: Channel, message: Bytes, due: Instant) -> Outcome {
    let mut grpc = Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    grpc.unary(Request::new(message), PathAndQuery::from_static(PATH), Raw)
        .await?;
    Ok(due.elapsed())
}
