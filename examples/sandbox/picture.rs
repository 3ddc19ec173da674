//! A screenshot stand-in: big digits on a coloured ground, as a PNG.

const WIDTH: usize = 320;
const HEIGHT: usize = 120;

/// A digit's pixel is this many of the picture's.
const SCALE: usize = 9;

/// `0` to `9` and `:`, three pixels wide and five high, a row each three bits.
const DIGITS: [u16; 11] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_010_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
    0b000_010_000_010_000,
];

/// The picture of a text of digits and colons.
pub(crate) fn png(text: &str) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(WIDTH * HEIGHT * 3);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let lit = is_lit(text, x.wrapping_sub(16) / SCALE, y.wrapping_sub(36) / SCALE);
            let ground = [30, (40 + y) as u8, (90 + x / 4) as u8];
            pixels.extend_from_slice(if lit { &[240, 240, 210] } else { &ground });
        }
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a picture of a fixed size");
    writer.write_image_data(&pixels).expect("as many pixels as the header says");
    writer.finish().expect("a vector takes all");
    out
}

/// Whether the text has ink at this place, in the digits' pixels; one is left free between two digits.
fn is_lit(text: &str, x: usize, y: usize) -> bool {
    let glyph = match text.as_bytes().get(x / 4) {
        Some(digit @ b'0'..=b'9') => DIGITS[usize::from(digit - b'0')],
        Some(b':') => DIGITS[10],
        _ => return false,
    };
    x % 4 < 3 && y < 5 && glyph >> (14 - (y * 3 + x % 4)) & 1 == 1
}
