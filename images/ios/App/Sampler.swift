// Samples what only the app itself knows, as melt-sampler does elsewhere: the host's plan in, samples.jsonl out.
// NOT YET RUN ON APPLE HARDWARE.

import Foundation

final class Sampler {
    private struct Channel {
        let read: () -> Double?
        let every: Int
    }

    private let file: Int32
    private let channels: [Channel?]
    private let period: TimeInterval
    private let over = DispatchSemaphore(value: 0)
    private let ended = DispatchSemaphore(value: 0)

    /// By the path of a source (meltrepro/targets/ios_state.py).
    private static let sources: [String: () -> Double?] = [
        "app/footprint": { let bytes = melt_footprint(); return bytes == 0 ? nil : Double(bytes) },
        "app/available": { let bytes = melt_available(); return bytes == 0 ? nil : Double(bytes) },
        "app/thermal_state": { Double(ProcessInfo.processInfo.thermalState.rawValue) },
    ]

    /// Nothing where the host wants no samples, or its plan cannot be read.
    init?(plan path: String, samples: String) {
        guard let data = FileManager.default.contents(atPath: path),
              let plan = try? JSONSerialization.jsonObject(with: data) as? [String: Any],
              let header = plan["header"] as? [String: Any],
              let wanted = plan["channels"] as? [[String: Any]],
              let rate = plan["rate_hz"] as? Double, rate > 0,
              let first = try? JSONSerialization.data(withJSONObject: header)
        else { return nil }
        let opened = open(samples, O_CREAT | O_TRUNC | O_APPEND | O_WRONLY, 0o644)
        guard opened >= 0 else { return nil }
        file = opened
        period = 1 / rate
        channels = wanted.map { channel in
            guard let path = channel["path"] as? String, let read = Sampler.sources[path] else { return nil }
            return Channel(read: read, every: max(1, channel["every"] as? Int ?? 1))
        }
        put(String(decoding: first, as: UTF8.self) + "\n")
    }

    func start() {
        let thread = Thread { self.run() }
        thread.qualityOfService = .utility
        thread.start()
    }

    /// Returns when the last line is in the file.
    func stop() {
        over.signal()
        ended.wait()
    }

    private func run() {
        let began = melt_thread_ns()
        var next = DispatchTime.now()
        var sweep = 0
        repeat {
            // Each sweep goes to the file at once: a phone that kills the app leaves what came before.
            var lines = ""
            for (index, channel) in channels.enumerated() {
                guard let channel, sweep % channel.every == 0, let value = channel.read() else { continue }
                lines += "[\(melt_clock_ns()),\(index),\(value)]\n"
            }
            put(lines)
            sweep += 1
            next = max(next + period, DispatchTime.now())
        } while over.wait(timeout: next) == .timedOut
        put("{\"end\":\(melt_clock_ns()),\"cpu_s\":\(Double(melt_thread_ns() - began) / 1e9)}\n")
        close(file)
        ended.signal()
    }

    private func put(_ text: String) {
        _ = text.withCString { write(file, $0, strlen($0)) }
    }
}
