use std::path::PathBuf;

/// Every environment variable that kapok looks at, read once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) config: Option<PathBuf>,
    pub(crate) model_repositories: Vec<PathBuf>,
    pub(crate) listen: Option<String>,
    pub(crate) admin: Option<String>,
    /// Log filter.
    pub(crate) log: Option<String>,
    /// ONNX Runtime's library.
    pub(crate) ort_dylib: Option<PathBuf>,
    /// Where downloads and libraries are kept: `KAPOK_CACHE`, or `kapok` in the user's cache folder.
    pub(crate) cache: Option<PathBuf>,
    /// Search path for programs.
    pub(crate) path: Vec<PathBuf>,
    pub(crate) url: Option<String>,
    pub(crate) admin_url: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) no_colour: bool,
}

impl Environment {
    pub(crate) fn read() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that reads the environment"
        )]
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// From any source of variables; an empty one counts as unset.
    pub(crate) fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
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
            cache: cache(get),
            path: paths("PATH"),
            url: get("KAPOK_URL"),
            admin_url: get("KAPOK_ADMIN_URL"),
            api_key: get("KAPOK_API_KEY"),
            // https://no-color.org: any value that is not empty.
            no_colour: get("NO_COLOR").is_some() || get("TERM").as_deref() == Some("dumb"),
        }
    }

    pub(crate) fn colour(&self) -> bool {
        !self.no_colour
    }

    /// The first program of this name on the search path.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let candidates = self.path.iter().map(|folder| folder.join(name));
        candidates.into_iter().find(|path| path.is_file())
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
