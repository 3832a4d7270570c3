/**
 * The tour: operations that open as tabs on the first visit, in the order to try them.
 *
 * A tab is named after its operation. Variables such as "@run" are placeholders (placeholders.ts). The operations are
 * validated against the schema by a test, so keep each one a single GraphQL-tagged template.
 */

interface Example {
  query: string;
  variables?: string;
}

function example(query: string, variables?: object): Example {
  return { query: query.trim(), ...(variables && { variables: JSON.stringify(variables, null, 2) }) };
}

const WELCOME = example(/* GraphQL */ `
# 1 · Welcome to Switchyard
#
# One GraphQL API for crawl jobs, deployments,
# risk scans and documents, and for watching
# them live. The tabs above are a tour: go from
# left to right and press ▶ (or Ctrl-Enter) in
# each. Nothing needs copying from tab to tab.
#
# First sign in: the form is in the pane on the
# left, behind the person icon. Then ▶ tells
# who you are.
#
# The book icon shows every type and field, the
# folder icon builds operations by clicks, and
# Ctrl-Space completes what you type.
query Welcome {
  me {
    id
    username
    email
    role
  }
}
`);

const SIGN_IN = example(
  /* GraphQL */ `
# 2 · Signing in, the way your own program does
# it
#
# You can skip this tab when you used the form
# on the left. Put your own name and password
# into the variables below and press ▶: this
# page takes over the session in the answer.
#
# Send the accessToken as "Authorization:
# Bearer …" with every request. It lives for
# minutes; refreshSession(input: {refreshToken:
# …}) gives the next pair. Passwords typed here
# are not kept by the browser.
mutation SignIn($input: LoginInput!) {
  login(input: $input) {
    accessToken
    refreshToken
    expiresAt
    user {
      username
      role
    }
  }
}
`,
  { input: { identifier: "", password: "" } },
);

const TOOLS = example(/* GraphQL */ `
# 3 · Tools: what can be crawled
#
# A tool knows how to crawl one kind of site.
# Its inputSchema is the JSON Schema that a
# job's input must fit.
#
# Lists are Relay connections: pass
# pageInfo.endCursor as "after" to get the next
# page.
query Tools {
  tools(first: 20) {
    edges {
      node {
        id
        slug
        name
        inputSchema
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`);

const CREATE_JOB = example(
  /* GraphQL */ `
# 4 · Create a job and run it
#
# A job is a tool with an input; a run is one
# execution of it. With run: true the first run
# is queued at once.
#
# "@tool" in the variables stands for the
# catalogue tool that tab 3 listed. The shop is
# the practice site that "make run" serves. An
# input that does not fit the tool's schema is
# refused, and the error says where: try it by
# deleting "startUrls".
mutation CreateJob($input: CreateJobInput!) {
  createJob(input: $input) {
    job {
      id
      name
    }
    run {
      id
      status
    }
  }
}
`,
  {
    input: {
      toolId: "@tool",
      name: "Practice shop",
      run: true,
      startUrls: ["http://127.0.0.1:8900/shop"],
      config: {
        detailLinks: { css: "a.product" },
        nextPage: { css: "a[rel=next]" },
        fields: [
          { name: "name", css: "h1", required: true },
          { name: "price", css: ".price", type: "decimal" },
          { name: "tags", css: ".tags a", list: true },
        ],
      },
    },
  },
);

const WATCH_LOG = example(
  /* GraphQL */ `
# 5 · Watch the log
#
# A subscription: first the lines stored so
# far, then each new one as it is written, and
# it completes by itself when the run is over.
# The lines gather below the answer. ▶ has
# become ■, which stops it.
#
# Pull the network cable if you like: the
# stream goes on after the last sequence that
# arrived, without a gap and without a repeat.
#
# "@run" stands for the run that tab 4 started.
subscription WatchLog($executionId: ID!, $afterSequence: Int = 0) {
  logs(executionId: $executionId, afterSequence: $afterSequence) {
    lines {
      sequence
      timestamp
      level
      message
      stage
    }
    lastSequence
    complete
  }
}
`,
  { executionId: "@run", afterSequence: 0 },
);

const WATCH_RUN = example(
  /* GraphQL */ `
# 6 · Watch the run itself
#
# The state now, then every change of it. It
# completes with the final status: SUCCEEDED,
# FAILED (and then failure says why) or
# CANCELLED.
subscription WatchRun($id: ID!) {
  execution(id: $id) {
    id
    status
    progress
    attempt
    startedAt
    finishedAt
    failure {
      code
      message
    }
  }
}
`,
  { id: "@run" },
);

const STOP_RUN = example(
  /* GraphQL */ `
# 7 · Stop it
#
# Reaches the run on whichever worker has it,
# within two seconds. CANCELLED is written once
# every process of the run is gone; what it had
# found by then stays. A run that is over
# already stays as it is.
mutation StopRun($id: ID!) {
  cancelJobRun(input: { id: $id }) {
    run {
      id
      status
    }
  }
}
`,
  { id: "@run" },
);

const RESULTS = example(
  /* GraphQL */ `
# 8 · Items and files
#
# What the run found, a page at a time, and the
# same as files. A file's url works without
# signing in and expires; ask again for a new
# one.
query Results($id: ID!) {
  jobRun(id: $id) {
    status
    itemsScraped
    items(first: 10) {
      edges {
        node {
          data
        }
      }
    }
    outputFiles {
      format
      size
      sha256
      rowCount
      url
    }
  }
}
`,
  { id: "@run" },
);

const CREATE_PROJECT = example(
  /* GraphQL */ `
# 9 · A project: a repository and how it
# is built
#
# The garden is the practice repository
# that "make run" serves; owner/name
# names one at GitHub. Without
# buildCommand and outputDirectory, the
# build does what suits the files.
mutation CreateProject(
  $name: String!
  $repository: String!
  $buildCommand: String
  $outputDirectory: String
) {
  createProject(
    input: {
      name: $name
      repository: $repository
      buildCommand: $buildCommand
      outputDirectory: $outputDirectory
    }
  ) {
    project {
      id
      name
      branch
      url
    }
  }
}
`,
  {
    name: "Garden",
    repository: "http://127.0.0.1:8900/git/garden",
    buildCommand: "sh build.sh",
    outputDirectory: "public",
  },
);

const DEPLOY = example(
  /* GraphQL */ `
# 10 · Deploy it
#
# The first mutation sets a variable: it
# reaches the build, and no log shows its
# value. The second asks for a deployment.
# Make the branch "spring" for a preview:
# it has an address of its own and leaves
# production alone.
#
# "@project" stands for the project that
# tab 9 made.
mutation Deploy(
  $projectId: ID!
  $greeting: String
  $branch: String
) {
  setEnvironmentVariables(
    input: {
      projectId: $projectId
      variables: [{ name: "GREETING", value: $greeting }]
    }
  ) {
    project {
      id
    }
  }
  createDeployment(
    input: { projectId: $projectId, branch: $branch }
  ) {
    deployment {
      id
      number
      status
      url
    }
  }
}
`,
  { projectId: "@project", greeting: "Good morning", branch: "main" },
);

const WATCH_BUILD = example(
  /* GraphQL */ `
# 11 · Watch it being built
#
# A deployment is an execution too: the
# same stream of its log, the same way to
# stop it (cancelDeployment). When it
# completes, open the url that tabs 9 and
# 10 show.
#
# "@deployment" stands for the deployment
# that tab 10 asked for.
subscription WatchBuild($executionId: ID!, $afterSequence: Int = 0) {
  logs(executionId: $executionId, afterSequence: $afterSequence) {
    lines {
      sequence
      timestamp
      level
      message
      stage
    }
    lastSequence
    complete
  }
}
`,
  { executionId: "@deployment", afterSequence: 0 },
);

const PROMOTE = example(
  /* GraphQL */ `
# 12 · Promote, or roll back
#
# Production moves to a deployment that
# was built, older or newer: at once,
# without a build. Deploy twice, then put
# the id of the first one here.
mutation Promote($id: ID!) {
  promoteDeployment(input: { id: $id }) {
    deployment {
      number
      commitMessage
      isLive
      project {
        url
      }
    }
  }
}
`,
  { id: "@deployment" },
);

const SCHEDULE = example(
  /* GraphQL */ `
# 13 · Run the job by itself
#
# Five fields of cron, in a time zone of your
# choice: through changes of the clocks it
# stays half past six there, and each moment
# runs once. pauseJobSchedule stops it for a
# while.
#
# "@job" stands for the job that tab 4 made.
mutation Schedule($input: SetJobScheduleInput!) {
  setJobSchedule(input: $input) {
    job {
      schedule {
        nextRuns(first: 5)
        overlapPolicy
        missedRunPolicy
        note
      }
    }
  }
}
`,
  { input: { jobId: "@job", cronExpression: "30 6 * * 1-5", timeZone: "Europe/Madrid" } },
);

const PREVIEW = example(
  /* GraphQL */ `
# 14 · Look before you crawl
#
# Five pages at most, at once, and nothing is
# kept: items, what did not fit and why, what
# was asked of which host, the log.
mutation Preview($input: PreviewJobInput!) {
  previewJob(input: $input) {
    closeReason
    pages {
      url
      status
      items
      links
    }
    items {
      data
    }
    rejectedItems {
      faults {
        path
        message
      }
    }
    hosts {
      host
      requests
      bytes
    }
  }
}
`,
  { input: { jobId: "@job", pages: 3 } },
);

const SCAN = example(
  /* GraphQL */ `
# 15 · Scan a text for risks
#
# An execution like the others: watch it with
# the subscriptions of tabs 5 and 6, and read
# scan(id) { risks { … } } when it is over.
mutation Scan($input: SubmitScanInput!) {
  submitScan(input: $input) {
    scan {
      id
      status
    }
  }
}
`,
  {
    input: {
      filename: "minutes.txt",
      text: "The supplier cannot deliver before May. Two developers leave the team, and the budget is exceeded.",
    },
  },
);

const DASHBOARD = example(/* GraphQL */ `
# 16 · What was done, in numbers
#
# Exact at this moment. analytics(range: …)
# has the series: per day, per hour, by status,
# compared with the time before, in any time
# zone.
query Dashboard {
  dashboard {
    deployments {
      total
      thisWeek
      weeklyChangePercent
    }
    projects {
      total
      active
      deployedToday
    }
    successRate {
      percent
      changePoints
    }
    averageDeployTime {
      seconds
      changePercent
    }
    jobs {
      running
      queued
      itemsToday
    }
    scans {
      risks
      risksThisWeek
    }
    recentDeployments {
      number
      status
      url
    }
  }
}
`);

const STATUS = example(/* GraphQL */ `
# 17 · How the service is, live
#
# Public, as the page /status is: what the
# probes found, then every change of it, until
# you press ■.
subscription Status {
  serviceStatus {
    overall
    services {
      name
      state
      since
      lastMilliseconds
    }
    incidents {
      title
      state
      impact
    }
  }
}
`);

export const EXAMPLES: Example[] = [
  WELCOME,
  SIGN_IN,
  TOOLS,
  CREATE_JOB,
  WATCH_LOG,
  WATCH_RUN,
  STOP_RUN,
  RESULTS,
  CREATE_PROJECT,
  DEPLOY,
  WATCH_BUILD,
  PROMOTE,
  SCHEDULE,
  PREVIEW,
  SCAN,
  DASHBOARD,
  STATUS,
];
