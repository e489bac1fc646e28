//! Curves and bars, without a script or a library.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 10.0;

/// Okabe and Ito's colours, which the colour-blind tell apart, and two greys.
pub(super) const COLOURS: [&str; 8] = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#999999",
];

pub(super) fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// Curves over 0 to 130 percent of demand, in percent.
pub(super) fn curves(title: &str, curves: &[(&str, Vec<(f64, f64)>)]) -> String {
    let x = |percent: f64| LEFT + percent / 130.0 * (WIDTH - LEFT - 10.0);
    let y = |percent: f64| HEIGHT - BOTTOM - percent / 100.0 * (HEIGHT - BOTTOM - TOP);
    let mut svg = open(title, HEIGHT);
    for percent in [0, 20, 40, 60, 80, 100] {
        let at = y(percent.into());
        line(&mut svg, (LEFT, at), (WIDTH - 10.0, at));
        text(
            &mut svg,
            (LEFT - 6.0, at + 4.0),
            "end",
            &percent.to_string(),
        );
    }
    for percent in [0, 30, 60, 90, 100, 130] {
        text(
            &mut svg,
            (x(percent.into()), HEIGHT - 10.0),
            "middle",
            &percent.to_string(),
        );
    }
    for (index, (name, points)) in curves.iter().enumerate() {
        let points: Vec<_> = points
            .iter()
            .map(|(percent, value)| format!("{:.1},{:.1}", x(*percent), y(*value)))
            .collect();
        let _ok = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" points=\"{}\"><title>{}</title></polyline>",
            colour(index),
            points.join(" "),
            escape(name)
        );
    }
    svg + "</svg>\n"
}

/// One bar a name, from `from` percent on: the differences matter, not the height.
pub(super) fn bars(title: &str, bars: &[(&str, f64)]) -> String {
    let height = bars.len() as f64 * 24.0 + 8.0;
    let least = bars.iter().map(|(_, value)| *value).fold(100.0, f64::min);
    let from = ((least - 2.0) / 5.0).floor().max(0.0) * 5.0;
    let span = (WIDTH - 220.0) / (100.0 - from).max(1.0);
    let mut svg = open(title, height);
    for (index, (name, value)) in bars.iter().enumerate() {
        let top = index as f64 * 24.0 + 4.0;
        text(&mut svg, (120.0, top + 14.0), "end", name);
        let width = (value - from).max(0.0) * span;
        let _ok = write!(
            svg,
            "<rect x=\"126\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"18\" fill=\"{}\"/>",
            colour(index)
        );
        text(
            &mut svg,
            (132.0 + width, top + 14.0),
            "start",
            &format!("{value:.2}"),
        );
    }
    svg + "</svg>\n"
}

fn open(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\"><title>{}</title>",
        escape(title)
    )
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ok = write!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    let _ok = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" font-size=\"12\" fill=\"currentColor\">{}</text>",
        at.0,
        at.1,
        escape(words)
    );
}

/// Names come from files and may hold anything.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
