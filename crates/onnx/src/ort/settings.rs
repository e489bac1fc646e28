//! What a model's configuration asks of ONNX Runtime, under the names that Triton's back end gave these settings.

use ort::session::builder::GraphOptimizationLevel;
use protocol::{Parameter, Parameters};
use runtime::engine::Source;

/// A call in so many gives the arena's free memory back, when shapes vary: an arena keeps the largest call's memory for
/// good, and shrinking after every call would cost each of them the allocation.
const CALLS_BETWEEN_SHRINKS: u32 = 64;

/// How sessions of one model are made and called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) level: Level,
    /// Threads across branches of the graph, where the owner asked for them; zero leaves the number to the cores.
    pub(super) branches: Option<usize>,
    pub(super) arena: bool,
    /// Memory plans for shapes seen before; none leaves it to whether shapes vary.
    pub(super) pattern: Option<bool>,
    pub(super) shrink: Shrink,
    /// Weights outside the arena.
    pub(super) device_allocator: bool,
    /// Lanes call one session; the owner may ask for one each.
    pub(super) shared: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    None,
    Basic,
    Extended,
    All,
}

impl From<Level> for GraphOptimizationLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::Disable,
            Level::Basic => Self::Level1,
            Level::Extended => Self::Level2,
            Level::All => Self::All,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shrink {
    /// The session has no arena, and ONNX Runtime refuses a call that asks for this.
    Never,
    /// Now and then, if shapes vary.
    Auto,
    /// After every call, these arenas (`cpu:0`).
    Always(String),
}

impl Shrink {
    /// The arenas to shrink after the call of this number.
    pub(super) fn at(&self, call: u32, static_shapes: bool) -> Option<&str> {
        match self {
            Self::Always(arenas) => Some(arenas),
            Self::Never => None,
            Self::Auto if static_shapes => None,
            Self::Auto => {
                (call % CALLS_BETWEEN_SHRINKS == CALLS_BETWEEN_SHRINKS - 1).then_some("cpu:0")
            }
        }
    }
}

impl Settings {
    /// The error names the parameter. Parameters of other names are the owner's own. An arena keeps the memory of its
    /// largest call between calls, so a `frugal` model has none unless its owner asks for it.
    pub(super) fn of(source: &Source, frugal: bool) -> Result<Self, String> {
        let given = Given(&source.parameters);
        let graph = source
            .config
            .optimization
            .as_ref()
            .and_then(|all| all.graph.as_ref());
        let level = graph.map_or(0, |graph| graph.level);
        let arena = given.switch("enable_mem_arena")?.unwrap_or(!frugal);
        let shrink = match given.text("memory.enable_memory_arena_shrinkage")? {
            _ if !arena => Shrink::Never,
            None | Some("") => Shrink::Auto,
            Some(arenas) => Shrink::Always(arenas.to_owned()),
        };
        let threads = given.number("inter_op_thread_count")?;
        let parallel = given.switch("execution_mode")?.unwrap_or(false);
        Ok(Self {
            level: match level {
                -1 => Level::Basic,
                0 => Level::All,
                1 => Level::Extended,
                2 => Level::None,
                other => {
                    return Err(format!(
                        "`optimization.graph.level` is {other}: -1 (basic), 0 (all), 1 (extended) or 2 (none) expected"
                    ));
                }
            },
            branches: parallel.then_some(threads.unwrap_or(0)),
            arena,
            pattern: given.switch("enable_mem_pattern")?,
            shrink,
            device_allocator: given
                .switch("session.use_device_allocator_for_initializers")?
                .unwrap_or(false),
            shared: given
                .switch("share_session_between_instances")?
                .unwrap_or(true),
        })
    }
}

struct Given<'a>(&'a Parameters);

impl Given<'_> {
    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Parameter::Text(text)) => Ok(Some(text.trim())),
            Some(_) => Err(format!("parameter `{name}` must be a string")),
        }
    }

    fn number(&self, name: &str) -> Result<Option<usize>, String> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!(
                "parameter `{name}` is `{text}`: a number of threads expected, 0 for the default"
            )),
        }
    }

    fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" => Ok(Some(true)),
            "0" | "false" => Ok(Some(false)),
            _ => Err(format!("parameter `{name}` is `{text}`: 0 or 1 expected")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::oip::proto::{
        ModelConfig, ModelOptimizationPolicy, model_optimization_policy::Graph,
    };

    use super::*;

    fn source(parameters: &[(&str, &str)], level: Option<i32>) -> Source {
        let parameters = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Parameter::Text((*value).to_owned())));
        let optimization = level.map(|level| ModelOptimizationPolicy {
            graph: Some(Graph { level }),
            ..ModelOptimizationPolicy::default()
        });
        Source {
            parameters: parameters.collect(),
            config: Arc::new(ModelConfig {
                optimization,
                ..ModelConfig::default()
            }),
            ..Source::default()
        }
    }

    #[test]
    fn tritons_parameters_are_honoured_under_their_names() {
        let of = |source: Source| Settings::of(&source, false);
        let usual = of(source(&[], None)).expect("defaults");
        assert_eq!(usual.level, Level::All);
        assert!(usual.arena && usual.shared && usual.branches.is_none() && usual.pattern.is_none());
        let asked = [
            ("execution_mode", "1"),
            ("inter_op_thread_count", "2"),
            ("enable_mem_arena", "0"),
            ("enable_mem_pattern", "true"),
            ("memory.enable_memory_arena_shrinkage", "cpu:0"),
            ("session.use_device_allocator_for_initializers", "1"),
            ("share_session_between_instances", "false"),
            ("a_name_of_the_owners", "7"),
        ];
        assert_eq!(
            of(source(&asked, Some(-1))).expect("known"),
            Settings {
                level: Level::Basic,
                branches: Some(2),
                arena: false,
                pattern: Some(true),
                shrink: Shrink::Never,
                device_allocator: true,
                shared: false,
            }
        );
        // Sequential execution has no use for threads across branches.
        let sequential = of(source(&[("inter_op_thread_count", "2")], None));
        assert_eq!(sequential.expect("known").branches, None);
    }

    #[test]
    fn under_a_budget_no_arena_keeps_what_calls_have_used() {
        for (asked, arena) in [(None, false), (Some("1"), true)] {
            let asked: Vec<_> = asked
                .map(|value| ("enable_mem_arena", value))
                .into_iter()
                .collect();
            let settings = Settings::of(&source(&asked, None), true).expect("known");
            assert_eq!(settings.arena, arena);
            assert_eq!(settings.shrink == Shrink::Never, !arena);
        }
    }

    #[test]
    fn a_value_that_means_nothing_is_refused_by_name() {
        for (name, value) in [
            ("enable_mem_arena", "yes"),
            ("inter_op_thread_count", "-1"),
            ("execution_mode", "2"),
        ] {
            let error = Settings::of(&source(&[(name, value)], None), false).expect_err(name);
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        let error = Settings::of(&source(&[], Some(5)), false).expect_err("no such level");
        assert!(error.contains("optimization.graph.level"), "{error}");
    }

    #[test]
    fn arenas_shrink_now_and_then_where_shapes_vary() {
        let shrinks = |shrink: &Shrink, fixed| {
            (0..128)
                .filter(|call| shrink.at(*call, fixed).is_some())
                .count()
        };
        assert_eq!(shrinks(&Shrink::Auto, false), 2);
        assert_eq!(shrinks(&Shrink::Auto, true), 0);
        assert_eq!(shrinks(&Shrink::Always("cpu:0".to_owned()), true), 128);
        assert_eq!(shrinks(&Shrink::Never, false), 0);
    }
}
