use std::sync::Arc;
use std::time::Duration;

use base::ErrorKind;
use parking_lot::Mutex;
use policy::{Over, What};
use protocol::ApiError;
use protocol::resource::LimitsSpec;

use crate::metrics::Metrics;

/// Whose account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    Key,
    Route,
}

impl Of {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Route => "route",
        }
    }
}

/// What a key or a route has used. It outlives snapshots: a reload forgives nothing.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) of: Of,
    pub(crate) name: Arc<str>,
    /// Held for some arithmetic and never across a wait.
    pub(super) state: Mutex<policy::Account>,
}

impl Account {
    pub(crate) fn new(of: Of, name: &str, limits: &LimitsSpec) -> Arc<Self> {
        Arc::new(Self {
            of,
            name: name.into(),
            state: Mutex::new(policy::Account::new(limits)),
        })
    }

    pub(crate) fn change(&self, limits: &LimitsSpec) {
        self.state.lock().change(limits);
    }

    pub(super) fn over(&self, over: &Over, metrics: &Metrics) -> ApiError {
        metrics.admission().limited(self, over.what);
        let (of, name, limit) = (self.of.name(), &self.name, over.limit);
        let message = match over.what {
            What::Requests => format!(
                "rate limit reached for {of} `{name}`: {limit} requests in {}; try again in {}",
                length(over.window),
                length(over.wait)
            ),
            What::Tokens => format!(
                "rate limit reached for {of} `{name}`: {limit} tokens in {}; try again in {}",
                length(over.window),
                length(over.wait)
            ),
            What::InFlight => {
                format!("{of} `{name}` has {limit} requests in flight, which is as many as it may")
            }
        };
        ApiError::new(ErrorKind::Exhausted, message)
            .with_code("rate_limit_exceeded")
            .retry_after(over.wait)
    }
}

fn length(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1000 {
        format!("{ms} ms")
    } else {
        format!("{} s", ms.div_ceil(1000))
    }
}
