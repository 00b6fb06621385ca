// Replays a golden pack, stage by stage, in plain Swift (iOS, macOS), with Foundation, ImageIO and CoreGraphics only.
// A translation of Verify.kt; it has not been compiled where this package is made. Report what a compiler says of it.
//
//     let pack = try GoldenPack(folder: url)
//     let verdict = try pack.verify(runModel: { input, dims, number in [.floats(scores)] }, prepare: myPreprocessing)
//     print(verdict)
//
// `runModel` gets `.bytes` (uint8 pixels) or `.floats` of shape `dims`, as contract.input in manifest.json says, and
// gives the model's outputs in the order of contract.outputs. nil: no model, the stages up to its input are compared.
// `prepare` is what is tested: the app's own preprocessing, which may leave stages out; this file's by default.

import CoreGraphics
import Foundation
import ImageIO

let faults: [(name: String, words: String)] = [
    ("bgr", "red and blue are exchanged (BGR instead of RGB)"),
    ("no-antialias", "the resize has no antialiasing"),
    ("crop-first", "the image is cropped before it is resized"),
    ("mean", "the normalisation has other constants (mean, std or the scale of 1 / 255)"),
    ("layout", "the layout is transposed (NHWC and NCHW exchanged)"),
    ("labels", "labels are shifted by one"),
]
let stageNames = ["decoded", "resized", "cropped", "input", "normalised", "outputs", "decision"]

typealias Json = [String: Any]

struct GoldenError: Error, CustomStringConvertible {
    let description: String
}

/// RGB, three bytes a pixel, row by row.
struct Pixels {
    var width: Int
    var height: Int
    var data: [UInt8]
}

enum Numbers {
    case bytes([UInt8])
    case floats([Float])
    case longs([Int64])

    var asFloats: [Float] {
        switch self {
        case .bytes(let values): return values.map(Float.init)
        case .floats(let values): return values
        case .longs(let values): return values.map { Float($0) }
        }
    }
}

enum Stage {
    case pixels(Pixels)
    case numbers(Numbers)
    case outputs([Numbers])
    case decision(Json)
}

typealias Stages = [String: Stage]

struct Check {
    let stage: String
    let state: String
    let text: String
    let images: [Int]
}

struct Verdict: CustomStringConvertible {
    let checks: [Check]
    let first: String?
    let guess: String

    var passed: Bool { first == nil && checks.contains { $0.state == "passed" } }

    var description: String {
        var lines = checks.map { check in
            check.stage.padding(toLength: 12, withPad: " ", startingAt: 0)
                + check.state.padding(toLength: 11, withPad: " ", startingAt: 0) + check.text
        }
        if let first {
            lines.append("stage \(first) differs" + (guess.isEmpty ? "" : "; it looks as if \(guess)"))
        } else {
            lines.append(passed ? "every stage that was given passed" : "no stage was given")
        }
        return lines.joined(separator: "\n")
    }
}

// MARK: - The loader: the pixels of a PNG as they stand, without colour management

func loadPixels(_ file: URL) throws -> Pixels {
    guard let source = CGImageSourceCreateWithURL(file as CFURL, nil),
        let image = CGImageSourceCreateImageAtIndex(source, 0, nil),
        let bytes = image.dataProvider?.data as Data?,
        image.bitsPerComponent == 8, image.bitsPerPixel == 24 || image.bitsPerPixel == 32
    else { throw GoldenError(description: "\(file.path) is no 8-bit image that can be read") }
    let each = image.bitsPerPixel / 8
    let first = image.alphaInfo == .noneSkipFirst || image.alphaInfo == .first || image.alphaInfo == .premultipliedFirst
    let little = image.bitmapInfo.contains(.byteOrder32Little)
    // where red, green and blue lie in a pixel
    let places = each == 3 ? [0, 1, 2] : little ? (first ? [2, 1, 0] : [3, 2, 1]) : (first ? [1, 2, 3] : [0, 1, 2])
    var data = [UInt8](repeating: 0, count: image.width * image.height * 3)
    for y in 0..<image.height {
        for x in 0..<image.width {
            for c in 0..<3 {
                let at = y * image.bytesPerRow + x * each + places[c]
                data[(y * image.width + x) * 3 + c] = bytes[bytes.startIndex + at]
            }
        }
    }
    return Pixels(width: image.width, height: image.height, data: data)
}

// MARK: - The preprocessing

func prepare(_ pixels: Pixels, _ contract: Json, fault: String? = nil) -> Stages {
    var image = pixels
    if fault == "bgr" {
        image.data = pixels.data.indices.map { pixels.data[$0 - $0 % 3 + 2 - $0 % 3] }
    }
    var stages: Stages = ["decoded": .pixels(image)]
    let steps = contract.object("preprocessing").objects("steps")
    let (resize, crop) = (steps[0], steps[1])
    let cropping = crop["step"] as? String == "crop"
    let short = min(image.width, image.height)
    var (width, height) = (image.width, image.height)
    if fault == "crop-first" {
        image = cropMiddle(image, short, short)
        let target = cropping ? crop : resize
        (width, height) = (target.int("width"), target.int("height"))
    } else if cropping {
        let side = resize.number("short_side")
        width = Int((side * Double(width) / Double(short)).rounded(.toNearestOrEven))
        height = Int((side * Double(height) / Double(short)).rounded(.toNearestOrEven))
    } else {
        (width, height) = (resize.int("width"), resize.int("height"))
    }
    var result = resizeImage(image, width, height, resize.text("filter"), antialias: fault != "no-antialias")
    stages["resized"] = .pixels(result)
    if cropping {
        result = cropMiddle(result, crop.int("width"), crop.int("height"))
        stages["cropped"] = .pixels(result)
    }
    return stages.merging(tensors(result, contract, fault: fault)) { $1 }
}

/// Separable, as Pillow and torch do it: weights of the filter, stretched where the image is reduced.
func resizeImage(_ image: Pixels, _ width: Int, _ height: Int, _ filter: String, antialias: Bool = true) -> Pixels {
    if image.width == width && image.height == height { return image }
    let across = weightsOf(image.width, width, filter, antialias)
    var rows = [Float](repeating: 0, count: image.height * width * 3)
    for y in 0..<image.height {
        for x in 0..<width {
            let (start, weights) = across[x]
            for c in 0..<3 {
                var sum = 0.0
                for k in weights.indices {
                    sum += weights[k] * Double(image.data[(y * image.width + start + k) * 3 + c])
                }
                rows[(y * width + x) * 3 + c] = Float(min(255, max(0, sum)))
            }
        }
    }
    let down = weightsOf(image.height, height, filter, antialias)
    var result = [UInt8](repeating: 0, count: height * width * 3)
    for y in 0..<height {
        let (start, weights) = down[y]
        for i in 0..<(width * 3) {
            var sum = 0.0
            for k in weights.indices { sum += weights[k] * Double(rows[(start + k) * width * 3 + i]) }
            result[y * width * 3 + i] = UInt8(min(255, max(0, (sum + 0.5).rounded(.down))))
        }
    }
    return Pixels(width: width, height: height, data: result)
}

private func weightsOf(_ from: Int, _ to: Int, _ filter: String, _ antialias: Bool) -> [(Int, [Double])] {
    let scale = Double(from) / Double(to)
    let stretch = antialias ? max(scale, 1) : 1
    let support = (filter == "bicubic" ? 2 : 1) * stretch
    return (0..<to).map { i in
        let centre = (Double(i) + 0.5) * scale
        let start = max(0, Int(centre - support + 0.5))
        let end = min(from, Int(centre + support + 0.5))
        let weights = (start..<end).map { kernel((Double($0) + 0.5 - centre) / stretch, filter) }
        let sum = weights.reduce(0, +)
        return (start, weights.map { $0 / sum })
    }
}

private func kernel(_ x: Double, _ filter: String) -> Double {
    let t = abs(x)
    let a = -0.5  // Keys' value, which Pillow and torch's antialiased resize have
    if filter != "bicubic" { return max(0, 1 - t) }
    if t < 1 { return ((a + 2) * t - (a + 3)) * t * t + 1 }
    return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0
}

func cropMiddle(_ image: Pixels, _ width: Int, _ height: Int) -> Pixels {
    let (top, left) = ((image.height - height) / 2, (image.width - width) / 2)
    var data = [UInt8]()
    data.reserveCapacity(width * height * 3)
    for y in 0..<height {
        let start = ((top + y) * image.width + left) * 3
        data += image.data[start..<(start + width * 3)]
    }
    return Pixels(width: width, height: height, data: data)
}

/// `normalised`, and before it `input` where the model takes pixels, in the model's layout.
func tensors(_ image: Pixels, _ contract: Json, fault: String? = nil) -> Stages {
    let step = contract.object("preprocessing").objects("steps").last!
    var (mean, std) = (step.numbers("mean"), step.numbers("std"))
    if fault == "mean" {
        let half = mean[0] == 0.5
        mean = half ? [0.485, 0.456, 0.406] : [0.5, 0.5, 0.5]
        std = half ? [0.229, 0.224, 0.225] : [0.5, 0.5, 0.5]
    }
    let scale = step.number("scale")
    let first = contract.object("input").channelsFirst != (fault == "layout")
    let count = image.data.count / 3
    // of each number of the tensor, its place in the image
    let places = (0..<(count * 3)).map { first ? $0 % count * 3 + $0 / count : $0 }
    var stages: Stages = [:]
    if contract.object("input").text("dtype") == "uint8" {
        stages["input"] = .numbers(.bytes(places.map { image.data[$0] }))
    }
    stages["normalised"] = .numbers(
        .floats(places.map { Float((Double(image.data[$0]) * scale - mean[$0 % 3]) / std[$0 % 3]) }))
    return stages
}

// MARK: - What outputs mean

/// The arrays that lie one after the other in the bytes of an .outputs.bin file.
func outputsFrom(_ bytes: Data, _ described: [Json]) throws -> [Numbers] {
    let each = ["float32": 4, "uint8": 1, "int64": 8]
    var (widths, free) = ([Int](), [Bool]())
    for one in described {
        let layout = Array(one.text("layout")), shape = one["shape"] as? [Any] ?? []
        var (width, isFree) = (each[one.text("dtype")] ?? 1, false)
        for (axis, side) in zip(layout, shape) where axis != "N" {
            if let side = side as? NSNumber { width *= side.intValue } else { isFree = true }
        }
        widths.append(width)
        free.append(isFree)
    }
    let freeWidth = zip(widths, free).reduce(0) { $0 + ($1.1 ? $1.0 : 0) }
    let fixed = widths.reduce(0, +) - freeWidth
    let count = freeWidth > 0 ? (bytes.count - fixed) / freeWidth : 0
    guard fixed + count * freeWidth == bytes.count else {
        throw GoldenError(description: "\(bytes.count) bytes of outputs, where \(fixed + count * freeWidth) are expected")
    }
    var at = 0
    return described.indices.map { i in
        let length = widths[i] * (free[i] ? count : 1)
        let part = Array(bytes[(bytes.startIndex + at)..<(bytes.startIndex + at + length)])
        at += length
        switch described[i].text("dtype") {
        case "float32": return .floats(littleEndian(part, 4) { Float(bitPattern: UInt32($0)) })
        case "int64": return .longs(littleEndian(part, 8) { Int64(bitPattern: $0) })
        default: return .bytes(part)
        }
    }
}

private func littleEndian<T>(_ bytes: [UInt8], _ width: Int, _ make: (UInt64) -> T) -> [T] {
    stride(from: 0, to: bytes.count, by: width).map { start in
        make((0..<width).reduce(UInt64(0)) { $0 | UInt64(bytes[start + $1]) << UInt64(8 * $1) })
    }
}

struct Box {
    var label: String
    var score: Double
    var corners: [Double]
}

func decide(_ outputs: [Numbers], _ manifest: Json, _ image: Json, fault: String? = nil) -> Json? {
    let size = manifest.int("size")
    var labels = manifest.texts("labels")
    if fault == "labels" { labels = [labels.last!] + labels.dropLast() }
    let form = manifest.text("form")
    if form == "raw" { return nil }  // an app decodes these itself
    if form == "scores" {
        let scores = outputs[0].asFloats
        let best = scores.indices.max { scores[$0] < scores[$1] }!
        return ["label": labels[best], "score": Double(scores[best])]
    }
    if form == "classes" || form == "logits" {
        let values = outputs[0].asFloats
        let pixels = size * size
        let last = manifest.object("contract").objects("outputs")[0].text("layout") == "NHWC"  // else NCHW
        var counts = [Int](repeating: 0, count: labels.count)
        for i in 0..<pixels {
            var best = 0
            if form == "classes" {
                best = Int(values[i])
            } else {
                func logit(_ c: Int) -> Float { values[last ? i * labels.count + c : c * pixels + i] }
                for c in labels.indices where logit(c) > logit(best) { best = c }
            }
            counts[best] += 1
        }
        var shares = Json()
        for (label, n) in zip(labels, counts) where n > 0 { shares[label] = Double(n) / Double(pixels) }
        return ["shares": shares]
    }
    let scales = [image.number("width") / Double(size), image.number("height") / Double(size)]
    let least = manifest.object("selection").number("min_score")
    return [
        "boxes": found(outputs, manifest, least).map { box -> Json in
            let corners = box.corners.enumerated().map { $1 * scales[$0 % 2] }
            return ["label": labels[Int(box.label)!], "score": box.score, "box": corners]
        }
    ]
}

/// Boxes in pixels of the input; their labels are numbers.
private func found(_ outputs: [Numbers], _ manifest: Json, _ least: Double) -> [Box] {
    let (places, scores) = (outputs[0].asFloats, outputs[1].asFloats)
    func box(_ i: Int) -> [Double] { (0..<4).map { Double(places[4 * i + $0]) } }
    if manifest.text("form") == "nms" {
        let labels = outputs[2].asFloats
        return scores.indices.filter { Double(scores[$0]) >= least }.map {
            Box(label: String(Int(labels[$0])), score: Double(scores[$0]), corners: box($0))
        }
    }
    let selection = manifest.object("selection"), classes = manifest.texts("labels").count
    var kept = [Box]()
    for label in 0..<classes {
        let all = (0..<(places.count / 4)).filter { Double(scores[$0 * classes + label]) >= least }
        let best = all.sorted { scores[$0 * classes + label] > scores[$1 * classes + label] }
        var chosen = [Box]()
        for i in best.prefix(selection.int("candidates")) {
            let corners = box(i)
            if chosen.allSatisfy({ iou(corners, $0.corners) <= selection.number("iou") }) {
                chosen.append(Box(label: String(label), score: Double(scores[i * classes + label]), corners: corners))
            }
        }
        kept += chosen
    }
    return Array(kept.sorted { $0.score > $1.score }.prefix(selection.int("most")))
}

func iou(_ a: [Double], _ b: [Double]) -> Double {
    func side(_ i: Int) -> Double { max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) }
    func area(_ box: [Double]) -> Double { (box[2] - box[0]) * (box[3] - box[1]) }
    let both = side(0) * side(1)
    return both / max(area(a) + area(b) - both, 1e-9)
}

// MARK: - The comparison: how far off in multiples of what is allowed (1 or less passes), and in words

final class GoldenPack {
    typealias Run = (Numbers, [Int], Int) throws -> [Numbers]
    typealias Off = (excess: Double, text: String)

    let folder: URL
    let manifest: Json
    private let contract: Json
    private let images: [Json]

    init(folder: URL) throws {
        self.folder = folder
        let content = try Data(contentsOf: folder.appendingPathComponent("manifest.json"))
        guard let manifest = try JSONSerialization.jsonObject(with: content) as? Json, manifest.int("golden") == 1 else {
            throw GoldenError(description: "a golden pack of another version")
        }
        self.manifest = manifest
        contract = manifest.object("contract")
        images = manifest.objects("images")
    }

    func verify(
        runModel: Run? = nil, fault: String? = nil, prepare own: ((Pixels, Json) throws -> Stages)? = nil
    ) throws -> Verdict {
        var seen = [String: [(number: Int, off: Off)]]()
        var failed = [(number: Int, stage: String, actual: Stage)]()
        for (number, image) in images.enumerated() {
            let expected = try expectedStages(image)
            guard case .pixels(let pixels)? = expected["decoded"] else { continue }
            var actual = try own?(pixels, contract) ?? prepare(pixels, contract, fault: fault)
            if let runModel, case .numbers(let input)? = actual["input"] ?? actual["normalised"] {
                let size = manifest.int("size")
                let dims = contract.object("input").channelsFirst ? [1, 3, size, size] : [1, size, size, 3]
                let outputs = try runModel(input, dims, number)
                actual["outputs"] = .outputs(outputs)
                if let decision = decide(outputs, manifest, image, fault: fault) { actual["decision"] = .decision(decision) }
            }
            var differs = false
            for stage in stageNames {
                guard let one = expected[stage] else { continue }
                if seen[stage] == nil { seen[stage] = [] }
                guard let other = actual[stage] else { continue }
                let off = difference(stage, one, other, image)
                seen[stage, default: []].append((number, off))
                if !(off.excess <= 1) && !differs {
                    differs = true
                    failed.append((number, stage, other))
                }
            }
        }
        let checks = stageNames.filter { seen[$0] != nil }.map { check($0, seen[$0] ?? []) }
        guard let first = checks.first(where: { $0.state == "differs" })?.stage else {
            return Verdict(checks: checks, first: nil, guess: "")
        }
        let looked = Array(failed.filter { $0.stage == first }.prefix(3))
        return Verdict(checks: checks, first: first, guess: try guess(first, looked))
    }

    private func bytes(_ file: Json) throws -> Data {
        try Data(contentsOf: folder.appendingPathComponent(file.text("file")))
    }

    private func expectedStages(_ image: Json) throws -> Stages {
        var last = try loadPixels(folder.appendingPathComponent(image.text("file")))
        var stages: Stages = ["decoded": .pixels(last)]
        for stage in ["resized", "cropped"] where image[stage] != nil {
            last = try loadPixels(folder.appendingPathComponent(image.object(stage).text("file")))
            stages[stage] = .pixels(last)
        }
        stages.merge(tensors(last, contract)) { $1 }
        let numbers = littleEndian(Array(try bytes(image.object("normalised"))), 4) { Float(bitPattern: UInt32($0)) }
        stages["normalised"] = .numbers(.floats(numbers))
        stages["outputs"] = .outputs(try outputsFrom(try bytes(image.object("outputs")), contract.objects("outputs")))
        if let decision = image["decision"] as? Json { stages["decision"] = .decision(decision) }
        return stages
    }

    private func check(_ stage: String, _ found: [(number: Int, off: Off)]) -> Check {
        guard let worst = found.max(by: { $0.off.excess < $1.off.excess }) else {
            return Check(stage: stage, state: "not given", text: "", images: [])
        }
        let bad = found.filter { !($0.off.excess <= 1) }.map(\.number)
        if bad.isEmpty {
            return Check(stage: stage, state: "passed", text: "\(found.count) images; worst: \(worst.off.text)", images: [])
        }
        let text = "\(bad.count) of \(found.count) images; worst is \(worst.number): \(worst.off.text)"
        return Check(stage: stage, state: "differs", text: text, images: bad)
    }

    private func difference(_ stage: String, _ expected: Stage, _ actual: Stage, _ image: Json) -> Off {
        let one: [Float]
        let other: [Float]
        switch (expected, actual) {
        case (.decision(let a), .decision(let b)): return decisionOff(a, b, image)
        case (.outputs(let a), .outputs(let b)): return outputsOff(a, b, image)
        case (.pixels(let a), .pixels(let b)):
            if a.width != b.width || a.height != b.height {
                return (.infinity, "\(b.height) x \(b.width) pixels instead of \(a.height) x \(a.width)")
            }
            one = Numbers.bytes(a.data).asFloats
            other = Numbers.bytes(b.data).asFloats
        case (.numbers(let a), .numbers(let b)):
            one = a.asFloats
            other = b.asFloats
        default: return (.infinity, "something else than the stage has")
        }
        if one.count != other.count { return (.infinity, "\(other.count) numbers instead of \(one.count)") }
        let step = contract.object("preprocessing").objects("steps").last!
        let units = stage == "normalised" ? step.numbers("std").map { $0 / step.number("scale") } : [1, 1, 1]
        let first = contract.object("input").channelsFirst && stage == "normalised"
        var off = one.indices.map { i in
            Double(abs(one[i] - other[i])) * units[first ? i / (one.count / 3) : i % 3]
        }
        if stage == "decoded" { return off.contains { $0 > 0 } ? (.infinity, "pixels differ") : (0, "identical") }
        if !off.allSatisfy(\.isFinite) { return (.infinity, "there are NaN or infinite values") }
        let allowed = manifest.object("tolerances").object(stage)
        let mean = off.reduce(0, +) / Double(off.count)
        off.sort()
        let most = off[Int(0.99 * Double(off.count - 1))]
        let limits = "(\(allowed.number("mean")) and \(allowed.number("p99")) are allowed)"
        let words = String(format: "%.2f grey levels off in the mean, 99%% of the values within %.0f ", mean, most)
        return (max(mean / allowed.number("mean"), most / allowed.number("p99")), words + limits)
    }

    private func outputsOff(_ expected: [Numbers], _ actual: [Numbers], _ image: Json) -> Off {
        let form = manifest.text("form")
        if form == "nms" {
            return boxesOff(found(expected, manifest, -.infinity), found(actual, manifest, -.infinity), image)
        }
        var (worst, words) = (0.0, [String]())
        for (place, output) in contract.objects("outputs").enumerated() {
            let (one, other) = (expected[place].asFloats, actual[place].asFloats)
            let limit = manifest.object("tolerances").object("outputs").number(output.text("name"))
            var off = Double.infinity
            if one.count == other.count {
                let differences = zip(one, other).map { Double(abs($0 - $1)) }
                let differing = Double(differences.filter { $0 != 0 }.count) / Double(one.count)
                let most = differences.allSatisfy(\.isFinite) ? differences.max() ?? 0 : .infinity
                off = form == "classes" ? differing : most
            }
            worst = max(worst, off / limit)
            words.append("\(output.text("name")) off by " + String(format: "%.2g (%.2g allowed)", off, limit))
        }
        return (worst, words.joined(separator: ", "))
    }

    private func decisionOff(_ expected: Json, _ actual: Json, _ image: Json) -> Off {
        if expected["boxes"] != nil { return boxesOff(boxes(expected), boxes(actual), image) }
        if expected["shares"] != nil {
            let (one, other) = (expected.object("shares"), actual["shares"] as? Json ?? [:])
            let names = Set(one.keys).union(other.keys)
            let differences = names.map { name -> Double in
                abs(((one[name] as? NSNumber)?.doubleValue ?? 0) - ((other[name] as? NSNumber)?.doubleValue ?? 0))
            }
            let off = differences.max() ?? 0
            let allowed = manifest.object("tolerances").object("decision").number("share")
            return (off / allowed, String(format: "a share is %.2f%% off", 100 * off))
        }
        let (one, other) = (expected.text("label"), actual["label"] as? String ?? "")
        return one == other ? (0, "the same label") : (.infinity, "'\(other)' instead of '\(one)'")
    }

    private func boxes(_ decision: Json) -> [Box] {
        (decision["boxes"] as? [Json] ?? []).map {
            Box(label: $0.text("label"), score: $0.number("score"), corners: $0.numbers("box"))
        }
    }

    private func boxesOff(_ expected: [Box], _ actual: [Box], _ image: Json) -> Off {
        let allowed = manifest.object("tolerances").object("decision")
        let sure = manifest.object("selection").number("min_score") + allowed.number("score")
        var (rest, missing) = (actual, 0)
        for one in expected {
            let near = rest.indices.filter {
                rest[$0].label == one.label && abs(rest[$0].score - one.score) <= allowed.number("score")
            }
            let best = near.max { iou(one.corners, rest[$0].corners) < iou(one.corners, rest[$1].corners) }
            if let best, iou(one.corners, rest[best].corners) >= allowed.number("iou") {
                rest.remove(at: best)
            } else if one.score >= sure {
                missing += 1
            }
        }
        let more = rest.filter { $0.score >= sure }.count
        let wrong = max(0, missing - image.int("unstable")) + max(0, more - image.int("unstable"))
        if wrong == 0 { return (0, "\(expected.count) boxes found again") }
        return (1 + Double(wrong), "\(missing) of \(expected.count) boxes have no partner, \(more) others are there")
    }

    /// The mistake with which this program gets what was given on every one of the images; or "".
    private func guess(_ stage: String, _ failed: [(number: Int, stage: String, actual: Stage)]) throws -> String {
        let labels = manifest.texts("labels")
        for fault in faults {
            let fits = try failed.allSatisfy { number, _, actual in
                let expected = try expectedStages(images[number])
                var variants = [Stage]()
                if fault.name == "labels" {
                    if case .decision(let decision)? = expected["decision"], stage == "decision" {
                        variants = [-1, 1].map { .decision(relabelled(decision, labels, $0)) }
                    }
                } else if case .pixels(let pixels)? = expected["decoded"],
                    let made = prepare(pixels, contract, fault: fault.name)[stage]
                {
                    variants = [made]
                }
                return variants.contains { difference(stage, $0, actual, images[number]).excess <= 1 }
            }
            if fits { return fault.words }
        }
        return ""
    }

    private func relabelled(_ decision: Json, _ labels: [String], _ by: Int) -> Json {
        func moved(_ name: String) -> String {
            labels[((labels.firstIndex(of: name) ?? 0) + by + labels.count) % labels.count]
        }
        var result = decision
        if let label = decision["label"] as? String { result["label"] = moved(label) }
        if let shares = decision["shares"] as? Json {
            result["shares"] = Json(uniqueKeysWithValues: shares.map { (moved($0.key), $0.value) })
        }
        if let boxes = decision["boxes"] as? [Json] {
            result["boxes"] = boxes.map { $0.merging(["label": moved($0.text("label"))]) { $1 } }
        }
        return result
    }
}

// MARK: - JSON, as JSONSerialization gives it

extension Dictionary where Key == String, Value == Any {
    func object(_ name: String) -> Json { self[name] as? Json ?? [:] }
    func objects(_ name: String) -> [Json] { self[name] as? [Json] ?? [] }
    func text(_ name: String) -> String { self[name] as? String ?? "" }
    func texts(_ name: String) -> [String] { self[name] as? [String] ?? [] }
    func number(_ name: String) -> Double { (self[name] as? NSNumber)?.doubleValue ?? 0 }
    func int(_ name: String) -> Int { Int(number(name)) }
    func numbers(_ name: String) -> [Double] {
        (self[name] as? [Any] ?? []).compactMap { ($0 as? NSNumber)?.doubleValue }
    }
    var channelsFirst: Bool { text("layout").hasSuffix("CHW") }
}
