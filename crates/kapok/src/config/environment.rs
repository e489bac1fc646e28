use std::collections::BTreeMap;
use std::path::PathBuf;

/// Set by a process for the one that it starts in its place.
pub(crate) const HANDOVER: &str = "KAPOK_HANDOVER";

/// Every environment variable that kapok looks at, read once.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    pub(crate) config: Option<PathBuf>,
    pub(crate) model_repositories: Vec<PathBuf>,
    pub(crate) listen: Option<String>,
    pub(crate) admin: Option<String>,
    /// Log filter.
    pub(crate) log: Option<String>,
    /// ONNX Runtime's library.
    pub(crate) ort_dylib: Option<PathBuf>,
    /// OpenVINO's C library.
    pub(crate) openvino_dylib: Option<PathBuf>,
    /// Where downloads and libraries are kept: `KAPOK_CACHE`, or `kapok` in the user's cache folder.
    pub(crate) cache: Option<PathBuf>,
    /// Search path for programs.
    pub(crate) path: Vec<PathBuf>,
    /// Folders where the loader looks first.
    pub(crate) libraries: Vec<PathBuf>,
    pub(crate) url: Option<String>,
    pub(crate) admin_url: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) no_colour: bool,
    /// Whether standard input is the line to a process that hands its work over to this one.
    pub(crate) takes_over: bool,
    /// Where a service manager wants to hear of us.
    pub(crate) notify: Option<PathBuf>,
    /// For secrets that a resource names.
    all: BTreeMap<String, String>,
}

impl Environment {
    pub(crate) fn read() -> Self {
        // Names and values that are no UTF-8 mean nothing to kapok.
        let pairs = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::of(pairs)
    }

    /// From any variables; an empty one counts as unset.
    pub(crate) fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let all: BTreeMap<String, String> = pairs
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let get = |name: &str| all.get(name).cloned();
        let paths = |name: &str| {
            get(name)
                .map(|list| std::env::split_paths(&list).collect())
                .unwrap_or_default()
        };
        Self {
            config: get("KAPOK_CONFIG").map(PathBuf::from),
            model_repositories: paths("KAPOK_MODEL_REPO"),
            listen: get("KAPOK_LISTEN"),
            admin: get("KAPOK_ADMIN"),
            log: get("KAPOK_LOG"),
            ort_dylib: get("ORT_DYLIB_PATH").map(PathBuf::from),
            openvino_dylib: get("OPENVINO_DYLIB_PATH").map(PathBuf::from),
            cache: cache(get),
            path: paths("PATH"),
            libraries: paths("LD_LIBRARY_PATH"),
            url: get("KAPOK_URL"),
            admin_url: get("KAPOK_ADMIN_URL"),
            api_key: get("KAPOK_API_KEY"),
            notify: get("NOTIFY_SOCKET").map(PathBuf::from),
            takes_over: get(HANDOVER).is_some(),
            // https://no-color.org: any value that is not empty.
            no_colour: get("NO_COLOR").is_some() || get("TERM").as_deref() == Some("dumb"),
            all,
        }
    }

    pub(crate) fn colour(&self) -> bool {
        !self.no_colour
    }

    /// A variable that a resource names.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str)
    }

    /// The first program of this name on the search path.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.path
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }
}

/// Values can be secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("config", &self.config)
            .field("names", &self.all.keys())
            .finish_non_exhaustive()
    }
}

fn cache(get: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(cache) = get("KAPOK_CACHE") {
        return Some(PathBuf::from(cache));
    }
    let user = get("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| get("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(user.join("kapok"))
}
