/// Model names and prefixes ending in `*`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns(Vec<String>);

impl Patterns {
    pub(crate) fn new(patterns: &[String]) -> Result<Self, String> {
        for pattern in patterns {
            if pattern.strip_suffix('*').unwrap_or(pattern).contains('*') {
                return Err(format!("`{pattern}`: a star may stand only at the end"));
            }
        }
        Ok(Self(patterns.to_vec()))
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => pattern == name,
            })
    }
}
