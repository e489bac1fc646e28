use protocol::resource::Scope;

/// The scopes of a key, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// What a key opens whose resource names these scopes, or none, and perhaps models.
    pub fn of(named: Option<&[Scope]>, some_models_only: bool) -> Self {
        let whole: &[Scope] = &Scope::ALL;
        let harmless: &[Scope] = &[Scope::Inference, Scope::Models, Scope::Metrics];
        let scopes = match named {
            Some(named) => named,
            None if some_models_only => harmless,
            None => whole,
        };
        Self(scopes.iter().fold(0, |set, scope| set | bit(*scope)))
    }

    pub fn has(self, scope: Scope) -> bool {
        self.0 & bit(scope) != 0
    }
}

fn bit(scope: Scope) -> u8 {
    1 << (scope as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_what_it_names_and_by_default_what_its_models_allow() {
        use Scope::{Admin, Inference, Jobs, Metrics, Models, Orders};
        for (named, some_models_only, open) in [
            (
                None,
                false,
                &[Inference, Models, Metrics, Orders, Admin, Jobs][..],
            ),
            (None, true, &[Inference, Models, Metrics]),
            (Some(&[Inference][..]), false, &[Inference]),
            (Some(&[Metrics, Admin]), false, &[Metrics, Admin]),
            (Some(&[]), false, &[]),
        ] {
            let scopes = Scopes::of(named, some_models_only);
            for scope in Scope::ALL {
                assert_eq!(
                    scopes.has(scope),
                    open.contains(&scope),
                    "{named:?}: {scope:?}"
                );
            }
        }
    }
}
