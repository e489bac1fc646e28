use std::borrow::Cow;

/// A family of a page in Prometheus' text form (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Family<'a> {
    pub(super) name: &'a str,
    pub(super) help: Cow<'a, str>,
    /// As it is written; empty where nothing is said.
    pub(super) kind: &'a str,
    pub(super) samples: Vec<Sample<'a>>,
}

/// Names and values.
pub(super) type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    /// With the suffix that a histogram's parts have.
    pub(super) name: &'a str,
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
}

/// Reads our own page. Lines that are none of ours are passed over.
pub(super) fn families(page: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in page.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (Some(word), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            let text = words.next().unwrap_or_default();
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family {
                    name,
                    ..Family::default()
                });
            }
            if let Some(family) = families.last_mut() {
                match word {
                    "HELP" => family.help = unescaped(text),
                    "TYPE" => family.kind = text,
                    _ => {}
                }
            }
        } else if let (Some(sample), Some(family)) = (sample(line), families.last_mut())
            && sample.name.starts_with(family.name)
        {
            family.samples.push(sample);
        }
    }
    families
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(end)?;
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let end = closing(quoted)?;
            let (value, after) = quoted.split_at_checked(end)?;
            labels.push((label, unescaped(value)));
            let after = after.strip_prefix('"')?;
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    // Behind the value there may be a time.
    let value = rest.split_whitespace().next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(Sample {
        name,
        labels,
        value,
    })
}

/// Where a quoted text ends.
fn closing(quoted: &str) -> Option<usize> {
    let mut escaped = false;
    quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_is_written() {
        let page = "# HELP a_total Things\\nthat happened.\n# TYPE a_total counter\na_total{x=\"1\",y=\"say \\\"a\\\\b\\\", twice\"} 3\na_total 4 1700000000\n\
            # HELP b Now.\n# TYPE b gauge\nb{} -0.5\nc 7\nb nonsense\n# EOF\n";
        let families = families(page);
        let [a, b] = &families[..] else {
            panic!("{families:?}")
        };
        assert_eq!(
            (a.name, &*a.help, a.kind),
            ("a_total", "Things\nthat happened.", "counter")
        );
        let labels = &a.samples[0].labels;
        assert_eq!(labels[0], ("x", "1".into()));
        assert_eq!(labels[1], ("y", "say \"a\\b\", twice".into()));
        assert_eq!((a.samples[0].value, a.samples[1].value), (3.0, 4.0));
        assert_eq!((b.kind, b.samples.len()), ("gauge", 1));
        assert_eq!(b.samples[0].value, -0.5);
    }

    #[test]
    fn half_a_line_is_no_sample() {
        for line in [
            "",
            "a",
            "a{",
            "a{x",
            "a{x=\"",
            "a{x=\"1\"",
            "a{x=\"1\"}",
            "a{x=\"1\\\"} 2",
        ] {
            assert_eq!(sample(line), None, "{line}");
        }
    }
}
