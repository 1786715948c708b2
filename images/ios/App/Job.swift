// One job from its first to its last word. NOT YET RUN ON APPLE HARDWARE.

import Foundation

final class Job {
    private let folder: String
    private let limit: TimeInterval
    private var begun = false
    private static let guardian = NSLock()
    private static var spoken = false

    private init(folder: String, limit: TimeInterval) {
        self.folder = folder
        self.limit = limit
    }

    /// The job that the host launched the app for; nothing where somebody has only opened the app.
    static func fromEnvironment() -> Job? {
        let environment = ProcessInfo.processInfo.environment
        guard let name = environment["MELTREPRO_JOB"],
              let text = environment["MELTREPRO_TIMEOUT_S"], let limit = TimeInterval(text),
              let documents = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask).first
        else { return nil }
        return Job(folder: documents.appendingPathComponent(name).path, limit: limit)
    }

    /// Run it on a thread of its own; the app's own thread stays free for the system.
    func start() {
        guard !begun else { return }
        begun = true
        let worker = Thread { self.run() }
        worker.qualityOfService = .userInteractive
        worker.stackSize = 16 << 20
        worker.start()
        let watch = Thread {
            Thread.sleep(forTimeInterval: self.limit)
            Job.end(128 + SIGKILL, timedOut: true)
        }
        watch.start()
    }

    private func run() {
        guard chdir(folder) == 0 else { exit(2) }
        // Whoever launches a job twice gets one run of it.
        guard open("started", O_CREAT | O_EXCL | O_WRONLY, 0o644) >= 0 else { exit(3) }
        freopen("stdout.log", "w", stdout)
        freopen("stderr.log", "w", stderr)
        let sampler = Sampler(plan: "sampling.json", samples: "samples.jsonl")
        sampler?.start()
        let status = melt_run("request.json", "events.jsonl")
        sampler?.stop()
        Job.end(status, timedOut: false)
    }

    /// The last word, said once.
    private static func end(_ status: Int32, timedOut: Bool) {
        guardian.lock()
        guard !spoken else { return }
        spoken = true
        fflush(stdout)
        fflush(stderr)
        let text = "{\"exit\": \(status & 0xFF), \"timed_out\": \(timedOut)}\n"
        // Written under another name first: half a status would be none.
        try? text.write(toFile: "status.json", atomically: true, encoding: .utf8)
        // Without the destructors of a framework that may still compute.
        _exit(status & 0xFF)
    }
}
