// Replays a golden pack, stage by stage, in plain Kotlin (JVM or Android), without other packages.
//
//     val verdict = GoldenPack(folder).verify(runModel = { input, dims -> listOf(...) }, prepare = ::myPreprocessing)
//
// `runModel` gets a ByteArray (uint8 pixels) or a FloatArray of shape `dims`, as contract.input in manifest.json says,
// and gives the model's outputs in the order of contract.outputs: FloatArray, ByteArray (uint8) or LongArray (int64).
// null: no model, the stages up to its input are compared. `prepare` is what is tested: the app's own preprocessing,
// which may leave stages out; `prepare` of this file by default. On Android copy the pack to `context.filesDir`, and
// make a `Pixels` of a Bitmap with `bitmap.getPixels` (see `pixelsOf`).
//
// On a computer: kotlinc Verify.kt -include-runtime -d verify.jar && java -jar verify.jar PACK [--fault NAME]
// [--outputs FOLDER]; FOLDER holds NUMBER.outputs.bin of the app. Exit code 0: every stage passed; 1: one differs.

package pocketvision.golden

import java.io.ByteArrayOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.Inflater
import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round
import kotlin.system.exitProcess

val FAULTS = mapOf(
    "bgr" to "red and blue are exchanged (BGR instead of RGB)",
    "no-antialias" to "the resize has no antialiasing",
    "crop-first" to "the image is cropped before it is resized",
    "mean" to "the normalisation has other constants (mean, std or the scale of 1 / 255)",
    "layout" to "the layout is transposed (NHWC and NCHW exchanged)",
    "labels" to "labels are shifted by one",
)
val STAGES = listOf("decoded", "resized", "cropped", "input", "normalised", "outputs", "decision")

typealias Json = Map<String, Any?>
typealias Stages = MutableMap<String, Any> // Pixels, ByteArray, FloatArray, List of outputs, or Json (decision)

/** RGB, three bytes a pixel, row by row. */
class Pixels(val width: Int, val height: Int, val data: ByteArray)

class Check(val stage: String, val state: String, val text: String, val images: List<Int>)

class Verdict(val checks: List<Check>, val first: String?, val guess: String) {
    val passed get() = first == null && checks.any { it.state == "passed" }

    override fun toString(): String {
        val lines = checks.map { "${it.stage.padEnd(11)} ${it.state.padEnd(10)} ${it.text}".trimEnd() }
        val end = when {
            first != null -> "stage $first differs" + if (guess.isEmpty()) "" else "; it looks as if $guess"
            passed -> "every stage that was given passed"
            else -> "no stage was given"
        }
        return (lines + end).joinToString("\n")
    }
}

/** Pixels of Android's `Bitmap.getPixels`, whose numbers are ARGB. */
fun pixelsOf(argb: IntArray, width: Int, height: Int) =
    Pixels(width, height, ByteArray(width * height * 3) { (argb[it / 3] shr (16 - 8 * (it % 3))).toByte() })

// ---- the preprocessing ----

fun prepare(pixels: Pixels, contract: Json, fault: String? = null): Stages {
    var image = pixels
    if (fault == "bgr") image = Pixels(image.width, image.height, ByteArray(image.data.size) { pixels.data[it - it % 3 + 2 - it % 3] })
    val stages: Stages = mutableMapOf("decoded" to image)
    val (resize, crop) = contract.of("preprocessing").list("steps")
    val cropping = crop["step"] == "crop"
    val short = min(image.width, image.height)
    var width = image.width
    var height = image.height
    when {
        fault == "crop-first" -> {
            image = cropMiddle(image, short, short)
            width = (if (cropping) crop else resize).int("width")
            height = (if (cropping) crop else resize).int("height")
        }
        cropping -> { // round takes halves to even numbers, as Python does
            width = round(resize.int("short_side") * width.toDouble() / short).toInt()
            height = round(resize.int("short_side") * height.toDouble() / short).toInt()
        }
        else -> {
            width = resize.int("width")
            height = resize.int("height")
        }
    }
    var result = resizeImage(image, width, height, resize["filter"] as String, fault != "no-antialias")
    stages["resized"] = result
    if (cropping) {
        result = cropMiddle(result, crop.int("width"), crop.int("height"))
        stages["cropped"] = result
    }
    stages.putAll(tensors(result, contract, fault))
    return stages
}

/** Separable, as Pillow and torch do it: weights of the filter, stretched where the image is reduced. */
fun resizeImage(image: Pixels, width: Int, height: Int, filter: String, antialias: Boolean = true): Pixels {
    if (image.width == width && image.height == height) return image
    val across = weightsOf(image.width, width, filter, antialias)
    val rows = FloatArray(image.height * width * 3)
    for (y in 0 until image.height) for (x in 0 until width) for (c in 0..2) {
        val (start, weights) = across[x]
        var sum = 0.0
        for (k in weights.indices) sum += weights[k] * (image.data[(y * image.width + start + k) * 3 + c].toInt() and 255)
        rows[(y * width + x) * 3 + c] = sum.coerceIn(0.0, 255.0).toFloat()
    }
    val down = weightsOf(image.height, height, filter, antialias)
    val result = ByteArray(height * width * 3)
    for (y in 0 until height) {
        val (start, weights) = down[y]
        for (i in 0 until width * 3) {
            var sum = 0.0
            for (k in weights.indices) sum += weights[k] * rows[(start + k) * width * 3 + i]
            result[y * width * 3 + i] = floor(sum + 0.5).coerceIn(0.0, 255.0).toInt().toByte()
        }
    }
    return Pixels(width, height, result)
}

private fun weightsOf(from: Int, to: Int, filter: String, antialias: Boolean): List<Pair<Int, DoubleArray>> {
    val scale = from.toDouble() / to
    val stretch = if (antialias) max(scale, 1.0) else 1.0
    val support = (if (filter == "bicubic") 2 else 1) * stretch
    return List(to) { i ->
        val centre = (i + 0.5) * scale
        val start = max(0, (centre - support + 0.5).toInt())
        val end = min(from, (centre + support + 0.5).toInt())
        val weights = DoubleArray(end - start) { kernel((start + it + 0.5 - centre) / stretch, filter) }
        val sum = weights.sum()
        start to DoubleArray(weights.size) { weights[it] / sum }
    }
}

private fun kernel(x: Double, filter: String): Double {
    val t = abs(x)
    val a = -0.5 // Keys' value, which Pillow and torch's antialiased resize have
    return when {
        filter != "bicubic" -> max(0.0, 1 - t)
        t < 1 -> ((a + 2) * t - (a + 3)) * t * t + 1
        t < 2 -> (((t - 5) * t + 8) * t - 4) * a
        else -> 0.0
    }
}

fun cropMiddle(image: Pixels, width: Int, height: Int): Pixels {
    val top = (image.height - height) / 2
    val left = (image.width - width) / 2
    val data = ByteArray(width * height * 3)
    for (y in 0 until height) image.data.copyInto(data, y * width * 3, ((top + y) * image.width + left) * 3, ((top + y) * image.width + left + width) * 3)
    return Pixels(width, height, data)
}

/** `normalised`, and before it `input` where the model takes pixels, in the model's layout. */
fun tensors(image: Pixels, contract: Json, fault: String? = null): Stages {
    val step = contract.of("preprocessing").list("steps").last()
    var mean = step.numbers("mean")
    var std = step.numbers("std")
    if (fault == "mean") {
        val half = mean[0] == 0.5
        mean = if (half) listOf(0.485, 0.456, 0.406) else listOf(0.5, 0.5, 0.5)
        std = if (half) listOf(0.229, 0.224, 0.225) else listOf(0.5, 0.5, 0.5)
    }
    val first = contract.of("input").channelsFirst() != (fault == "layout")
    val count = image.data.size / 3
    fun place(i: Int) = if (first) i % count * 3 + i / count else i // of number i of the tensor, in the image
    val stages: Stages = mutableMapOf()
    if (contract.of("input")["dtype"] == "uint8") stages["input"] = ByteArray(count * 3) { image.data[place(it)] }
    stages["normalised"] = FloatArray(count * 3) {
        val at = place(it)
        (((image.data[at].toInt() and 255) * step.number("scale") - mean[at % 3]) / std[at % 3]).toFloat()
    }
    return stages
}

// ---- PNG: 8 bits, RGB, not interlaced, which is what a pack holds ----

fun decodePng(bytes: ByteArray): Pixels {
    val view = ByteBuffer.wrap(bytes)
    var width = 0
    var height = 0
    val packed = ByteArrayOutputStream()
    var at = 8
    while (at < bytes.size) {
        val length = view.getInt(at)
        when (String(bytes, at + 4, 4, Charsets.US_ASCII)) {
            "IHDR" -> {
                width = view.getInt(at + 8)
                height = view.getInt(at + 12)
                require(bytes[at + 16].toInt() == 8 && bytes[at + 17].toInt() == 2 && bytes[at + 20].toInt() == 0) { "PNG is not 8-bit RGB" }
            }
            "IDAT" -> packed.write(bytes, at + 8, length)
        }
        at += 12 + length
    }
    val stride = width * 3
    val raw = ByteArray(height * (stride + 1))
    val inflater = Inflater().apply { setInput(packed.toByteArray()) }
    var filled = 0
    while (filled < raw.size) filled += inflater.inflate(raw, filled, raw.size - filled).also { require(it > 0) { "PNG is damaged" } }
    inflater.end()
    val data = ByteArray(height * stride)
    fun value(y: Int, i: Int) = if (y < 0 || i < 0) 0 else data[y * stride + i].toInt() and 255
    for (y in 0 until height) for (i in 0 until stride) {
        val a = value(y, i - 3)
        val b = value(y - 1, i)
        val c = if (i < 3) 0 else value(y - 1, i - 3)
        val guess = when (raw[y * (stride + 1)].toInt()) {
            0 -> 0
            1 -> a
            2 -> b
            3 -> (a + b) / 2
            else -> {
                val (pa, pb, pc) = listOf(abs(b - c), abs(a - c), abs(a + b - 2 * c))
                if (pa <= pb && pa <= pc) a else if (pb <= pc) b else c
            }
        }
        data[y * stride + i] = (raw[y * (stride + 1) + 1 + i] + guess).toByte()
    }
    return Pixels(width, height, data)
}

// ---- what outputs mean ----

/** The arrays that lie one after the other in the bytes of an .outputs.bin file. */
fun outputsFrom(bytes: ByteArray, described: List<Json>): List<Any> {
    val each = mapOf("float32" to 4, "uint8" to 1, "int64" to 8)
    val widths = described.map { one ->
        val layout = one["layout"] as String
        (one["shape"] as List<*>).filterIndexed { i, side -> side != null && layout[i] != 'N' }
            .fold(each.getValue(one["dtype"] as String)) { product, side -> product * (side as Double).toInt() }
    }
    val free = described.map { one -> (one["shape"] as List<*>).indices.any { (one["shape"] as List<*>)[it] == null && (one["layout"] as String)[it] != 'N' } }
    val one = widths.filterIndexed { i, _ -> free[i] }.sum()
    val count = if (one > 0) (bytes.size - widths.sum() + one) / one else 0
    val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    val arrays = described.mapIndexed { i, output ->
        val length = widths[i] * (if (free[i]) count else 1)
        when (output["dtype"]) {
            "float32" -> FloatArray(length / 4) { buffer.getFloat() }
            "int64" -> LongArray(length / 8) { buffer.getLong() }
            else -> ByteArray(length) { buffer.get() }
        }
    }
    require(!buffer.hasRemaining()) { "${bytes.size} bytes of outputs, where ${buffer.position()} are expected" }
    return arrays
}

class Box(val label: String, val score: Double, val corners: List<Double>)

fun decide(outputs: List<Any>, manifest: Json, image: Json, fault: String? = null): Json? {
    val size = manifest.int("size")
    var labels = manifest.texts("labels")
    if (fault == "labels") labels = labels.takeLast(1) + labels.dropLast(1)
    when (val form = manifest["form"]) {
        "raw" -> return null // an app decodes these itself
        "scores" -> {
            val scores = outputs[0] as FloatArray
            val best = scores.indices.maxByOrNull { scores[it] }!!
            return mapOf("label" to labels[best], "score" to scores[best].toDouble())
        }
        "classes", "logits" -> {
            val counts = IntArray(labels.size)
            val pixels = size * size
            val last = manifest.of("contract").list("outputs")[0]["layout"] == "NHWC" // else NCHW
            for (i in 0 until pixels) counts[if (form == "classes") (outputs[0] as ByteArray)[i].toInt() and 255 else bestOf(outputs[0] as FloatArray, i, pixels, last)]++
            return mapOf("shares" to labels.indices.filter { counts[it] > 0 }.associate { labels[it] to counts[it].toDouble() / pixels })
        }
    }
    val x = image.number("width") / size
    val y = image.number("height") / size
    val boxes = found(outputs, manifest, manifest.of("selection").number("min_score")).map { (label, score, box) ->
        mapOf("label" to labels[label], "score" to score, "box" to box.mapIndexed { i, v -> v * (if (i % 2 == 0) x else y) })
    }
    return mapOf("boxes" to boxes)
}

private fun bestOf(logits: FloatArray, pixel: Int, pixels: Int, last: Boolean): Int {
    val classes = logits.size / pixels
    return (0 until classes).maxByOrNull { logits[if (last) pixel * classes + it else it * pixels + pixel] }!!
}

private fun found(outputs: List<Any>, manifest: Json, least: Double): List<Triple<Int, Double, List<Double>>> {
    val places = outputs[0] as FloatArray
    val scores = outputs[1] as FloatArray
    fun box(i: Int) = List(4) { places[4 * i + it].toDouble() }
    if (manifest["form"] == "nms") {
        val labels = outputs[2] as LongArray
        return scores.indices.filter { scores[it] >= least }.map { Triple(labels[it].toInt(), scores[it].toDouble(), box(it)) }
    }
    val selection = manifest.of("selection")
    val classes = manifest.texts("labels").size
    val kept = mutableListOf<Triple<Int, Double, List<Double>>>()
    for (label in 0 until classes) {
        val best = (0 until places.size / 4).filter { scores[it * classes + label] >= least }.sortedByDescending { scores[it * classes + label] }
        val chosen = mutableListOf<Triple<Int, Double, List<Double>>>()
        for (i in best.take(selection.int("candidates"))) {
            if (chosen.all { iou(box(i), it.third) <= selection.number("iou") }) chosen += Triple(label, scores[i * classes + label].toDouble(), box(i))
        }
        kept += chosen
    }
    return kept.sortedByDescending { it.second }.take(selection.int("most"))
}

fun iou(a: List<Double>, b: List<Double>): Double {
    fun side(i: Int) = max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]))
    fun area(box: List<Double>) = (box[2] - box[0]) * (box[3] - box[1])
    val both = side(0) * side(1)
    return both / max(area(a) + area(b) - both, 1e-9)
}

// ---- the comparison: how far off in multiples of what is allowed (1 or less passes), and in words ----

class GoldenPack(private val folder: File) {
    val manifest = parseJson(File(folder, "manifest.json").readText()).also { require(it.int("golden") == 1) { "a golden pack of another version" } }
    private val contract = manifest.of("contract")
    private val images = manifest.list("images")

    fun verify(
        runModel: ((Any, IntArray, Int) -> List<Any>)? = null,
        fault: String? = null,
        prepare: (Pixels, Json) -> Stages = { pixels, contract -> prepare(pixels, contract, fault) },
    ): Verdict {
        val seen = mutableMapOf<String, MutableList<Triple<Int, Double, String>>>() // of the stages that the pack has
        val failed = mutableListOf<Triple<Int, String, Any>>()
        for ((number, image) in images.withIndex()) {
            val expected = expected(image)
            val actual = prepare(expected["decoded"] as Pixels, contract)
            if (runModel != null) {
                val size = manifest.int("size")
                val dims = if (contract.of("input").channelsFirst()) intArrayOf(1, 3, size, size) else intArrayOf(1, size, size, 3)
                val outputs = runModel(actual["input"] ?: actual.getValue("normalised"), dims, number)
                actual["outputs"] = outputs
                decide(outputs, manifest, image, fault)?.let { actual["decision"] = it }
            }
            var differs = false
            for (stage in STAGES) {
                val right = expected[stage] ?: continue
                val found = seen.getOrPut(stage) { mutableListOf() }
                val (excess, text) = difference(stage, right, actual[stage] ?: continue, image)
                found += Triple(number, excess, text)
                if (!(excess <= 1) && !differs) failed += Triple(number, stage, actual.getValue(stage)).also { differs = true }
            }
        }
        val checks = seen.map { (stage, found) -> check(stage, found) }
        val first = checks.firstOrNull { it.state == "differs" }?.stage
        return Verdict(checks, first, if (first == null) "" else guess(first, failed.filter { it.second == first }.take(3)))
    }

    private fun expected(image: Json): Stages {
        fun bytes(file: Json) = File(folder, file["file"] as String).readBytes()
        val stages: Stages = mutableMapOf("decoded" to decodePng(bytes(image)))
        for (stage in listOf("resized", "cropped")) if (stage in image) stages[stage] = decodePng(bytes(image.of(stage)))
        stages.putAll(tensors((stages["cropped"] ?: stages.getValue("resized")) as Pixels, contract))
        val numbers = ByteBuffer.wrap(bytes(image.of("normalised"))).order(ByteOrder.LITTLE_ENDIAN)
        stages["normalised"] = FloatArray(numbers.remaining() / 4) { numbers.getFloat() }
        stages["outputs"] = outputsFrom(bytes(image.of("outputs")), contract.list("outputs"))
        image["decision"]?.let { stages["decision"] = it }
        return stages
    }

    private fun check(stage: String, found: List<Triple<Int, Double, String>>): Check {
        val worst = found.maxByOrNull { it.second } ?: return Check(stage, "not given", "", listOf())
        val bad = found.filter { !(it.second <= 1) }
        if (bad.isEmpty()) return Check(stage, "passed", "${found.size} images; worst: ${worst.third}", listOf())
        return Check(stage, "differs", "${bad.size} of ${found.size} images; worst is ${worst.first}: ${worst.third}", bad.map { it.first })
    }

    private fun difference(stage: String, expected: Any, actual: Any, image: Json): Pair<Double, String> {
        if (stage == "decision") return decisionOff(expected.json(), actual.json(), image)
        if (stage == "outputs") return outputsOff(expected as List<*>, actual as List<*>, image)
        if (expected is Pixels && actual is Pixels && (expected.width != actual.width || expected.height != actual.height)) {
            return Double.POSITIVE_INFINITY to "${actual.height} x ${actual.width} pixels instead of ${expected.height} x ${expected.width}"
        }
        val one = numbersOf(expected)
        val other = numbersOf(actual)
        if (one.size != other.size) return Double.POSITIVE_INFINITY to "${other.size} numbers instead of ${one.size}"
        val step = contract.of("preprocessing").list("steps").last()
        val units = DoubleArray(3) { if (stage == "normalised") step.numbers("std")[it] / step.number("scale") else 1.0 }
        val first = contract.of("input").channelsFirst()
        val off = DoubleArray(one.size) { abs(one[it] - other[it]) * units[if (first && stage == "normalised") it / (one.size / 3) else it % 3] }
        if (stage == "decoded") return if (off.any { it > 0 }) Double.POSITIVE_INFINITY to "pixels differ" else 0.0 to "identical"
        if (!off.all { it.isFinite() }) return Double.POSITIVE_INFINITY to "there are NaN or infinite values"
        val allowed = manifest.of("tolerances").of(stage)
        val mean = off.average()
        off.sort()
        val most = off[(0.99 * (off.size - 1)).toInt()]
        val limits = "(${allowed["mean"]} and ${allowed["p99"]} are allowed)"
        val words = "%.2f grey levels off in the mean, 99%% of the values within %.0f %s".format(mean, most, limits)
        return max(mean / allowed.number("mean"), most / allowed.number("p99")) to words
    }

    private fun outputsOff(expected: List<*>, actual: List<*>, image: Json): Pair<Double, String> {
        if (manifest["form"] == "nms") {
            val (one, other) = listOf(expected, actual).map { outputs ->
                found(outputs.map { it!! }, manifest, Double.NEGATIVE_INFINITY).map { Box(it.first.toString(), it.second, it.third) }
            }
            return boxesOff(one, other, image)
        }
        var worst = 0.0
        val words = contract.list("outputs").mapIndexed { place, output ->
            val one = numbersOf(expected[place]!!)
            val other = numbersOf(actual[place]!!)
            val limit = manifest.of("tolerances").of("outputs").number(output["name"] as String)
            val differences = if (one.size == other.size) one.indices.map { abs(one[it] - other[it]).toDouble() } else listOf(Double.POSITIVE_INFINITY)
            val off = if (manifest["form"] == "classes") differences.count { it != 0.0 }.toDouble() / one.size else differences.maxOrNull()!!
            worst = max(worst, if (off.isFinite()) off / limit else Double.POSITIVE_INFINITY)
            "${output["name"]} off by %.2g (%.2g allowed)".format(off, limit)
        }
        return worst to words.joinToString(", ")
    }

    private fun decisionOff(expected: Json, actual: Json, image: Json): Pair<Double, String> {
        if ("boxes" in expected) return boxesOff(boxesIn(expected), boxesIn(actual), image)
        if ("shares" in expected) {
            val one = expected.of("shares")
            val other = (actual["shares"] ?: mapOf<String, Any?>()).json()
            val off = (one.keys + other.keys).maxOf { abs(((one[it] ?: 0.0) as Double) - ((other[it] ?: 0.0) as Double)) }
            return off / manifest.of("tolerances").of("decision").number("share") to "a share is %.2f%% off".format(100 * off)
        }
        if (actual["label"] == expected["label"]) return 0.0 to "the same label"
        return Double.POSITIVE_INFINITY to "'${actual["label"]}' instead of '${expected["label"]}'"
    }

    private fun boxesIn(decision: Json) =
        decision.list("boxes").map { Box(it["label"] as String, it.number("score"), it.numbers("box")) }

    private fun boxesOff(expected: List<Box>, actual: List<Box>, image: Json): Pair<Double, String> {
        val allowed = manifest.of("tolerances").of("decision")
        val sure = manifest.of("selection").number("min_score") + allowed.number("score")
        val rest = actual.toMutableList()
        var missing = 0
        for (one in expected) {
            val near = rest.filter { it.label == one.label && abs(it.score - one.score) <= allowed.number("score") }
            val best = near.maxByOrNull { iou(one.corners, it.corners) }
            if (best != null && iou(one.corners, best.corners) >= allowed.number("iou")) rest.remove(best) else if (one.score >= sure) missing++
        }
        val more = rest.count { it.score >= sure }
        val wrong = max(0, missing - image.int("unstable")) + max(0, more - image.int("unstable"))
        if (wrong == 0) return 0.0 to "${expected.size} boxes found again"
        return 1.0 + wrong to "$missing of ${expected.size} boxes have no partner, $more others are there"
    }

    /** The mistake with which this program gets what was given on every one of the images; or "". */
    private fun guess(stage: String, failed: List<Triple<Int, String, Any>>): String {
        val labels = manifest.texts("labels")
        fun variants(fault: String, expected: Stages): List<Any> = when {
            fault != "labels" -> listOfNotNull(prepare(expected["decoded"] as Pixels, contract, fault)[stage])
            stage == "decision" -> listOf(-1, 1).map { by -> relabelled(expected.getValue("decision").json(), labels, by) }
            else -> listOf()
        }
        val likely = FAULTS.keys.firstOrNull { fault ->
            failed.all { (number, _, given) ->
                variants(fault, expected(images[number])).any { difference(stage, it, given, images[number]).first <= 1 }
            }
        }
        return FAULTS[likely] ?: ""
    }

    private fun relabelled(decision: Json, labels: List<String>, by: Int): Json {
        fun moved(name: Any?) = labels[Math.floorMod(labels.indexOf(name as String) + by, labels.size)]
        return when {
            "label" in decision -> decision + ("label" to moved(decision["label"]))
            "shares" in decision -> mapOf("shares" to decision.of("shares").mapKeys { moved(it.key) })
            else -> mapOf("boxes" to decision.list("boxes").map { it + ("label" to moved(it["label"])) })
        }
    }

    private fun numbersOf(values: Any): FloatArray = when (values) {
        is Pixels -> numbersOf(values.data)
        is ByteArray -> FloatArray(values.size) { (values[it].toInt() and 255).toFloat() }
        is LongArray -> FloatArray(values.size) { values[it].toFloat() }
        else -> values as FloatArray
    }
}

// ---- JSON, as much of it as a manifest has ----

@Suppress("UNCHECKED_CAST")
private fun Any?.json() = this as Json

@Suppress("UNCHECKED_CAST")
private fun Json.list(name: String) = getValue(name) as List<Json>

@Suppress("UNCHECKED_CAST")
private fun Json.numbers(name: String) = getValue(name) as List<Double>

@Suppress("UNCHECKED_CAST")
private fun Json.texts(name: String) = getValue(name) as List<String>

private fun Json.of(name: String) = getValue(name).json()

private fun Json.number(name: String) = getValue(name) as Double

private fun Json.int(name: String) = number(name).toInt()

private fun Json.channelsFirst() = (getValue("layout") as String).endsWith("CHW")

fun parseJson(text: String): Json {
    var at = 0
    fun skip() { while (text[at].isWhitespace() || text[at] == ',' || text[at] == ':') at++ }
    fun string(): String {
        val result = StringBuilder()
        at++
        while (text[at] != '"') {
            if (text[at] != '\\') { result.append(text[at++]); continue }
            when (val escaped = text[at + 1]) {
                'u' -> { result.append(text.substring(at + 2, at + 6).toInt(16).toChar()); at += 4 }
                'n' -> result.append('\n')
                't' -> result.append('\t')
                'r' -> result.append('\r')
                'b' -> result.append('\b')
                'f' -> result.append('\u000c')
                else -> result.append(escaped)
            }
            at += 2
        }
        at++
        return result.toString()
    }
    fun value(): Any? {
        skip()
        return when (text[at]) {
            '{' -> mutableMapOf<String, Any?>().also { at++; skip(); while (text[at] != '}') { val name = string(); it[name] = value(); skip() }; at++ }
            '[' -> mutableListOf<Any?>().also { at++; skip(); while (text[at] != ']') { it.add(value()); skip() }; at++ }
            '"' -> string()
            't' -> true.also { at += 4 }
            'f' -> false.also { at += 5 }
            'n' -> null.also { at += 4 }
            else -> { val start = at; while (text[at] in "+-.0123456789eE") at++; text.substring(start, at).toDouble() }
        }
    }
    return value().json()
}

// ---- on a computer ----

fun main(given: Array<String>) {
    fun option(name: String) = given.indexOf(name).let { if (it < 0) null else given[it + 1] }
    val fault = option("--fault")
    require(fault == null || fault in FAULTS) { "--fault $fault is unknown; valid: ${FAULTS.keys.joinToString()}" }
    val pack = GoldenPack(File(given[0]))
    val run = option("--outputs")?.let { folder ->
        { _: Any, _: IntArray, number: Int ->
            outputsFrom(File(folder, "$number.outputs.bin").readBytes(), pack.manifest.of("contract").list("outputs"))
        }
    }
    val verdict = pack.verify(run, fault)
    println(verdict)
    exitProcess(if (verdict.passed) 0 else 1)
}
