//! Goodput over loss as an SVG picture.

use std::fmt::Write as _;

use super::OnePath;
use super::spec::Transport;

/// One line for each transport; losses stand at equal distances, as zero has no logarithm.
pub(crate) fn goodput_over_loss(paths: &[OnePath]) -> String {
    let Some(first) = paths.first() else { return String::new() };
    let options = &first.options;
    let x = |index: usize| LEFT + (WIDTH - LEFT - RIGHT) * index as f64 / (paths.len().max(2) - 1) as f64;
    let y = |mbit: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * mbit / options.rate;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">Goodput over random loss: {} Mbit/s, {} ms round trip</text>\n",
        options.rate, options.rtt
    );
    // A string takes everything.
    let _ = axes(&mut svg, paths, x, y);
    let mut labels: Vec<(f64, String)> = Vec::new();
    for (transport, colour) in COLOURS {
        let points: Vec<(usize, f64)> = paths
            .iter()
            .enumerate()
            .filter_map(|(index, path)| {
                let measured = path.measured.iter().find(|measured| measured.transport == transport)?;
                Some((index, measured.goodput_mbit))
            })
            .collect();
        let Some(&(_, last)) = points.last() else { continue };
        let line: Vec<String> =
            points.iter().map(|&(index, mbit)| format!("{:.1},{:.1}", x(index), y(mbit))).collect();
        let width = if transport == Transport::Longhaul { 3.5 } else { 1.8 };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            line.join(" ")
        );
        for &(index, mbit) in &points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(index),
                y(mbit)
            );
        }
        let label = format!("fill=\"{colour}\">{transport} {last:.1}");
        labels.push((y(last), label));
    }
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = f64::NEG_INFINITY;
    for (height, label) in labels {
        // Labels of lines that end close together stand below each other.
        lowest = (lowest + LABEL_HEIGHT).max(height);
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" {label}</text>", WIDTH - RIGHT + 10.0, lowest + 4.0);
    }
    svg + "</svg>\n"
}

fn axes(
    svg: &mut String,
    paths: &[OnePath],
    x: impl Fn(usize) -> f64,
    y: impl Fn(f64) -> f64,
) -> std::fmt::Result {
    let rate = paths[0].options.rate;
    for tenth in 0..=5 {
        let mbit = rate * f64::from(tenth) / 5.0;
        let height = y(mbit);
        writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{height:.1}\" x2=\"{:.1}\" y2=\"{height:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mbit:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            height + 4.0
        )?;
    }
    for (index, path) in paths.iter().enumerate() {
        let loss = path.options.loss;
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{loss} %</text>",
            x(index),
            HEIGHT - BOTTOM + 20.0
        )?;
    }
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">random loss, both ways</text>\n\
         <text x=\"16\" y=\"{:.1}\" transform=\"rotate(-90 16 {:.1})\" text-anchor=\"middle\">goodput, Mbit/s</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0,
        HEIGHT / 2.0,
        HEIGHT / 2.0
    )
}

const COLOURS: [(Transport, &str); 7] = [
    (Transport::Longhaul, "#0b5fa5"),
    (Transport::LonghaulAdaptive, "#55a6dd"),
    (Transport::Quinn, "#8a8a8a"),
    (Transport::TcpCubic { flows: 1 }, "#e2a08d"),
    (Transport::TcpCubic { flows: 4 }, "#c0392b"),
    (Transport::TcpBbr { flows: 1 }, "#8fce9b"),
    (Transport::TcpBbr { flows: 4 }, "#1e8449"),
];
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;
const LABEL_HEIGHT: f64 = 15.0;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Options;
    use super::super::measured::Measured;
    use super::*;

    fn path(loss: f64, goodput: &[(Transport, f64)]) -> OnePath {
        let measured = goodput.iter().map(|&(transport, goodput_mbit)| Measured {
            first_seconds: 0.3,
            transport,
            goodput_mbit,
            steady_mbit: goodput_mbit,
            goodput_bytes: 1,
            wire: None,
            cpu_seconds: [0.0; 2],
            connections: 1,
            path: None,
        });
        let options = Options { loss, ..Options::parse_from(["link"]) };
        OnePath { options, measured: measured.collect(), missing: Vec::new() }
    }

    #[test]
    fn every_transport_that_was_measured_has_a_line_and_its_last_figure() {
        let quinn = Transport::Quinn;
        let paths = [
            path(0.0, &[(Transport::Longhaul, 93.0), (quinn, 89.0)]),
            path(1.0, &[(Transport::Longhaul, 92.0), (quinn, 1.6)]),
            path(3.0, &[(Transport::Longhaul, 90.0)]),
        ];
        let svg = goodput_over_loss(&paths);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("longhaul 90.0") && svg.contains("quinn 1.6"), "{svg}");
        assert!(
            svg.contains("60.0,69.2 365.0,72.8 670.0,80.0"),
            "the line stands where its figures are: {svg}"
        );
        assert_eq!(goodput_over_loss(&[]), "");
    }
}
