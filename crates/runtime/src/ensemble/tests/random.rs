//! Random graphs against a direct evaluation.

use std::collections::BTreeMap;

use super::*;

/// Numerical Recipes' generator: the same graphs on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

/// The steps of a graph over the input `t0`, each reading tensors made before it, and what each tensor then is.
fn graph(seed: u64) -> (Vec<String>, BTreeMap<String, i32>) {
    let mut random = Random(seed);
    let mut steps = Vec::new();
    let mut known = vec![("t0".to_owned(), 3_i32)];
    for step in 0..1 + random.below(7) {
        let (from, value) = known[random.below(known.len())].clone();
        let (other, second) = known[random.below(known.len())].clone();
        let (a, b) = (format!("a{step}"), format!("b{step}"));
        match random.below(3) {
            0 => {
                steps.push(format!("double: in={from} -> out={a}"));
                known.push((a, value.wrapping_mul(2)));
            }
            1 => {
                steps.push(format!("identity: in={from} -> out={a}"));
                known.push((a, value));
            }
            _ => {
                steps.push(format!(
                    "pair: in0={from}, in1={other} -> out0={a}, out1={b}"
                ));
                known.push((a, value));
                known.push((b, second));
            }
        }
    }
    // In any order: the graph decides which runs first.
    for place in (1..steps.len()).rev() {
        steps.swap(place, random.below(place + 1));
    }
    known.remove(0);
    (steps, known.into_iter().collect())
}

#[tokio::test]
async fn random_graphs_compute_what_they_say() {
    const SEEDS: u64 = 40;
    let graphs: Vec<_> = (0..SEEDS).map(graph).collect();
    let files: Vec<(String, String)> = graphs
        .iter()
        .enumerate()
        .map(|(seed, (steps, known))| {
            let outputs: Vec<&str> = known.keys().map(String::as_str).collect();
            let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
            (
                format!("g{seed}/config.pbtxt"),
                ensemble(&["t0"], &outputs, &steps),
            )
        })
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let root = models(&files);
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    for (seed, (_, known)) in graphs.iter().enumerate() {
        let name = format!("g{seed}");
        let reads_input = standing(&runtime, &name);
        assert_eq!(
            reads_input.0,
            ModelState::Ready,
            "seed {seed}: {}",
            reads_input.1
        );
        let (response, _) = infer(&runtime, ask(&name, &[("t0", &[3])], &[]))
            .await
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(response.outputs.len(), known.len());
        for (tensor, expected) in known {
            assert_eq!(
                values(&response, tensor),
                [*expected],
                "seed {seed}, {tensor}"
            );
            let (one, _) = infer(&runtime, ask(&name, &[("t0", &[3])], &[tensor]))
                .await
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(
                values(&one, tensor),
                [*expected],
                "seed {seed}, only {tensor}"
            );
        }
    }
}
