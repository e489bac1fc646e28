use base::ErrorKind;
use http::StatusCode;
use protocol::ApiError;

use super::control;
use super::path::Call;
use super::visit::Visit;
use crate::reply::{Failure, Reply};

/// Enough for a person to look through, when no number is given.
const REQUESTS_SHOWN: usize = 100;

pub(super) async fn answer(
    visit: Visit<'_>,
    call: Call,
    query: Option<&str>,
) -> Result<Reply, Failure> {
    let gateway = visit.exchange.gateway.clone();
    let shared = gateway.shared();
    Ok(match call {
        Call::Request(id) => {
            let record = shared.recent.find(&id).ok_or_else(|| {
                let message = format!("request `{id}` is not among the last ones kept");
                ApiError::new(ErrorKind::NotFound, message)
            })?;
            Reply::serialised(StatusCode::OK, &*record)?
        }
        Call::Requests => {
            let records = shared.recent.latest(limit(query)?);
            let records: Vec<_> = records.iter().map(|record| &**record).collect();
            Reply::serialised(StatusCode::OK, &records)?
        }
        Call::Models => Reply::serialised(StatusCode::OK, &shared.models.describe())?,
        Call::RollBack(model) => control::roll_back(visit, &model).await?,
        Call::Upstreams => Reply::serialised(StatusCode::OK, &gateway.upstreams())?,
        Call::Config => Reply::serialised(StatusCode::OK, &**shared.config_status.load())?,
        // The other calls have doors of their own.
        Call::Live
        | Call::Ready(_)
        | Call::Metrics
        | Call::OpenApi
        | Call::Job(_)
        | Call::OpenAi(_)
        | Call::Oip(_) => {
            return Err(Failure::no_such_path("/admin/v1"));
        }
    })
}

fn limit(query: Option<&str>) -> Result<usize, ApiError> {
    let given = query
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("limit="));
    match given {
        None => Ok(REQUESTS_SHOWN),
        Some(text) => text.parse().map_err(|_| {
            ApiError::invalid(format!("`limit` is a whole number, not `{text}`"))
                .with_param("limit")
        }),
    }
}
