//! Whose settings apply: a model's own where it has them, else the server's, else those of the start.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use protocol::oip::settings::{TraceChange, TraceLevel, TraceSettings};

use super::Unusable;

#[derive(Debug)]
pub(super) struct Scopes {
    start: TraceSettings,
    server: Scope,
    /// Of models with settings of their own. As many as somebody has named and the repository has.
    models: HashMap<String, Scope>,
}

#[derive(Debug)]
struct Scope {
    own: Own,
    live: Arc<Live>,
}

/// What was set here, rather than fallen back to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Own {
    level: Option<TraceLevel>,
    rate: Option<u32>,
    count: Option<i32>,
    log_frequency: Option<u32>,
}

/// Settings in force, and how far they have come. A change makes new ones; traces that were taken keep theirs.
#[derive(Debug)]
pub(super) struct Live {
    settings: TraceSettings,
    seen: AtomicU64,
    /// Below 0: no end.
    left: AtomicI64,
    pub(super) written: AtomicU64,
}

impl Live {
    fn new(settings: TraceSettings) -> Arc<Self> {
        Arc::new(Self {
            seen: AtomicU64::new(0),
            left: AtomicI64::new(settings.count.into()),
            written: AtomicU64::new(0),
            settings,
        })
    }

    /// With what is left of the count, as Triton says it.
    pub(super) fn settings(&self) -> TraceSettings {
        TraceSettings {
            count: i32::try_from(self.left.load(Ordering::Relaxed)).unwrap_or(-1),
            ..self.settings.clone()
        }
    }

    pub(super) fn log_frequency(&self) -> u32 {
        self.settings.log_frequency
    }

    pub(super) fn file(&self) -> &str {
        &self.settings.file
    }

    fn on(&self) -> bool {
        self.settings.level != TraceLevel::Off
    }

    pub(super) fn takes_one(&self) -> bool {
        if !self.on() || self.left.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if !seen.is_multiple_of(self.settings.rate.into()) {
            return false;
        }
        let one_less = |left: i64| match left {
            0 => None,
            1.. => Some(left - 1),
            _ => Some(left),
        };
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }
}

impl Own {
    fn changed(self, change: TraceChange) -> Self {
        Self {
            level: change.level.apply(self.level),
            rate: change.rate.apply(self.rate),
            count: change.count.apply(self.count),
            log_frequency: change.log_frequency.apply(self.log_frequency),
        }
    }

    fn over(self, fallback: &TraceSettings) -> Result<TraceSettings, Unusable> {
        let settings = TraceSettings {
            level: self.level.unwrap_or(fallback.level),
            rate: self.rate.unwrap_or(fallback.rate),
            count: self.count.unwrap_or(fallback.count),
            log_frequency: self.log_frequency.unwrap_or(fallback.log_frequency),
            file: fallback.file.clone(),
        };
        usable(&settings)?;
        Ok(settings)
    }
}

/// Triton's two conditions, and its words.
fn usable(settings: &TraceSettings) -> Result<(), Unusable> {
    if settings.level == TraceLevel::Off {
        return Ok(());
    }
    if settings.rate == 0 {
        return Err(Unusable("sample rate must be non-zero"));
    }
    if settings.file.is_empty() {
        return Err(Unusable("trace file name is not given"));
    }
    Ok(())
}

impl Scopes {
    pub(super) fn new(start: TraceSettings) -> Result<Self, Unusable> {
        usable(&start)?;
        Ok(Self {
            server: Scope {
                own: Own::default(),
                live: Live::new(start.clone()),
            },
            start,
            models: HashMap::new(),
        })
    }

    pub(super) fn any_on(&self) -> bool {
        self.server.live.on() || self.models.values().any(|scope| scope.live.on())
    }

    pub(super) fn live(&self, model: Option<&str>) -> &Arc<Live> {
        let own = model.and_then(|model| self.models.get(model));
        &own.unwrap_or(&self.server).live
    }

    /// All or nothing: if one scope cannot be used with the change, none is changed.
    pub(super) fn change(
        &mut self,
        model: Option<&str>,
        change: TraceChange,
    ) -> Result<(), Unusable> {
        let Some(model) = model else {
            return self.change_server(change);
        };
        let own = self.models.get(model).map(|scope| scope.own);
        let own = own.unwrap_or_default().changed(change);
        if own == Own::default() {
            self.models.remove(model);
            return Ok(());
        }
        let live = Live::new(own.over(&self.server.live.settings)?);
        self.models.insert(model.to_owned(), Scope { own, live });
        Ok(())
    }

    fn change_server(&mut self, change: TraceChange) -> Result<(), Unusable> {
        let own = self.server.own.changed(change);
        let settings = own.over(&self.start)?;
        let mut models = Vec::with_capacity(self.models.len());
        for (name, scope) in &self.models {
            models.push((name.clone(), scope.own.over(&settings)?));
        }
        self.server = Scope {
            own,
            live: Live::new(settings),
        };
        for (name, settings) in models {
            if let Some(scope) = self.models.get_mut(&name)
                && scope.live.settings != settings
            {
                scope.live = Live::new(settings);
            }
        }
        Ok(())
    }
}
