/** What is changed, and which tests must notice. */
export interface Area {
  readonly sources: readonly string[];
  readonly tests: readonly string[];
  /** One PostgreSQL is started for all runs. */
  readonly database?: boolean;
  /**
   * All test files run in one process, which saves most of the time where they are short and do not disturb each other.
   */
  readonly inOne?: boolean;
}

/** Tests that take long for little, or that something else than the room's own code decides, are left out. */
export const AREAS: Record<string, Area> = {
  codec: { sources: ['src/codec/*.ts'], tests: ['test/codec/*.test.ts'], inOne: true },
  session: { sources: ['src/session/*.ts'], tests: ['test/session/*.test.ts'], inOne: true },
  oxenmq: { sources: ['src/oxenmq/*.ts'], tests: ['test/oxenmq/*.test.ts'] },
  monitoring: {
    sources: ['src/hivemind/{monitoring,network}/*.ts'],
    tests: ['test/hivemind/{monitoring,network}/*.test.ts'],
    inOne: true,
  },
  notifications: {
    sources: ['src/hivemind/notifications/**/*.ts'],
    tests: [
      'test/hivemind/notifications/{,copies/}*.test.ts',
      'test/hivemind/notifications/outbox/{outbox,push-queue,cluster,instances,service}.test.ts',
    ],
    inOne: true,
  },
  standby: {
    sources: [
      'src/hivemind/notifications/copies/{fingerprints,progress-reports,standby}.ts',
      'src/session/cluster-protocol.ts',
    ],
    tests: [
      'test/hivemind/notifications/copies/{fingerprints,progress-reports,standby}.test.ts',
      'test/session/cluster-protocol.test.ts',
      'test/hivemind/notifications/outbox/cluster.test.ts',
    ],
    inOne: true,
  },
  store: {
    sources: ['src/hivemind/store/*.ts'],
    tests: [
      'test/hivemind/store/{client,cluster-start,cluster-store,connection,conninfo,copy-rows,database-main,database-refuses,feed-position}.test.ts',
      'test/hivemind/store/{group-commit,load,migrate,open,passfile,pgbouncer,probe,psql,stat-changes,statements,store,store-faults}.test.ts',
      'test/hivemind/store/write-health.test.ts',
    ],
    database: true,
  },
  feed: {
    sources: ['src/hivemind/cluster/feed.ts', 'src/hivemind/store/{cluster-store,feed-position}.ts'],
    tests: [
      'test/hivemind/store/{cluster-store,feed-position}.test.ts',
      'test/hivemind/cluster/{feed,feed-pace}.test.ts',
    ],
    database: true,
  },
  cluster: {
    sources: ['src/hivemind/cluster/*.ts'],
    tests: [
      'test/hivemind/cluster/{cluster,commands,duties,feed,feed-pace,hearing,holders,links,roster}.test.ts',
      'test/hivemind/cluster/{shared-subscriptions,slots-held,spared-slots,stop}.test.ts',
    ],
    database: true,
  },
  subscriptions: {
    sources: ['src/hivemind/subscriptions/*.ts'],
    tests: ['test/hivemind/subscriptions/*.test.ts'],
    database: true,
  },
  devices: {
    sources: ['src/hivemind/devices/*.ts'],
    tests: ['test/hivemind/devices/*.test.ts'],
    inOne: true,
  },
  canary: {
    sources: ['src/notifiers/canary/{prober,swarm,front-end,identity}.ts'],
    tests: ['test/notifiers/canary/*.test.ts'],
    database: true,
  },
  operators: {
    sources: ['src/hivemind/operators/{problems,status-page,counted-histogram}.ts', 'src/latency.ts'],
    tests: ['test/hivemind/operators/{problems,status-page,counted-histogram}.test.ts', 'test/latency.test.ts'],
  },
  'notifiers-runtime': {
    sources: ['src/notifiers/runtime/*.ts'],
    tests: ['test/notifiers/{runtime,apns}/*.test.ts', 'test/notifiers/proxy.test.ts'],
    inOne: true,
  },
  webpush: {
    sources: ['src/notifiers/webpush/*.ts', 'src/special-addresses.ts', 'src/notifiers/runtime/lanes.ts'],
    tests: [
      'test/notifiers/webpush/*.test.ts',
      'test/special-addresses.test.ts',
      'test/session/node-address.test.ts',
      'test/notifiers/runtime/sender.test.ts',
    ],
    inOne: true,
  },
  proxy: {
    sources: ['src/notifiers/runtime/{proxy,tunnel}.ts'],
    tests: ['test/notifiers/proxy.test.ts'],
    inOne: true,
  },
  web: {
    sources: ['src/web/*.ts'],
    tests: ['test/web/{hiveminds,metrics,onion,places,server,strangers,subscriptions,web}.test.ts'],
    inOne: true,
  },
  settings: { sources: ['src/settings/*.ts'], tests: ['test/settings/*.test.ts'], inOne: true },
  daemon: { sources: ['src/daemon/*.ts'], tests: ['test/daemon/*.test.ts'] },
};
