// The runner app: one job, then it ends; without a job it says what it is. NOT YET RUN ON APPLE HARDWARE.
//
// The host puts a job's folder among the documents, launches the app with the folder's name in its environment, and reads
// what it left (meltrepro/targets/ios_jobs.py).

import SwiftUI

@main
struct MeltRunnerApp: App {
    private let job = Job.fromEnvironment()

    var body: some Scene {
        WindowGroup {
            Text(job == nil ? "meltrepro: no job\nnot yet run on Apple hardware" : "measuring")
                .multilineTextAlignment(.center)
                .onAppear {
                    // A screen that goes off takes the app to the background, where it may not compute on the GPU.
                    UIApplication.shared.isIdleTimerDisabled = true
                    job?.start()
                }
        }
    }
}
