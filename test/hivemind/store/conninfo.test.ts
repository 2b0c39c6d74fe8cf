import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConninfoError, parseConninfo } from '../../../src/hivemind/store/conninfo.ts';

const read = (url: string, env: NodeJS.ProcessEnv = {}) => parseConninfo(url, { env, user: 'me', home: '/home/me' });
/** What most tests look at: user, password, hosts with ports, and database. */
const short = (url: string, env?: NodeJS.ProcessEnv) => {
  const { user, password, hosts, database } = read(url, env);
  const where = hosts.map(({ host, hostaddr, port }) => `${host}${hostaddr ? `(${hostaddr})` : ''}:${port}`);
  return `${user}/${password ?? '-'}@${where.join(',')}/${database}`;
};

describe("the database's address", () => {
  it('is read part by part as libpq documents it', () => {
    for (const [url, expected] of Object.entries({
      'postgresql://': 'me/-@:5432/me',
      'postgresql:///spns': 'me/-@:5432/spns',
      'postgres://localhost': 'me/-@localhost:5432/me',
      'postgresql://localhost/': 'me/-@localhost:5432/me',
      'postgresql://localhost:5433': 'me/-@localhost:5433/me',
      'postgresql://:5433/spns': 'me/-@:5433/spns',
      'postgresql://h:65535/d': 'me/-@h:65535/d',
      'postgresql://spns@localhost': 'spns/-@localhost:5432/spns',
      'postgresql://spns:secret@localhost': 'spns/secret@localhost:5432/spns',
      'postgresql://spns:@localhost/d': 'spns/-@localhost:5432/d',
      'postgresql://:secret@localhost/d': 'me/secret@localhost:5432/d',
      'postgresql://u:a#b?c&d=e;f@h/d': 'u/a#b?c&d=e;f@h:5432/d',
      'postgresql://u:a:b@h/d': 'u/a:b@h:5432/d',
      'postgresql://u:%23%3f%40%2F+@h/d': 'u/#?@/+@h:5432/d',
      'postgresql://u%40x:p@h/my%20db': 'u@x/p@h:5432/my db',
      'postgresql://u@h:5433?dbname=spns': 'u/-@h:5433/spns',
      'postgresql://u@h/one?dbname=two': 'u/-@h:5432/two',
      'postgresql:///d?host=/tmp&port=5433&user=x&password=y': 'x/y@/tmp:5433/d',
      'postgresql://%2Fvar%2Flib%2Fpostgresql/dbname': 'me/-@/var/lib/postgresql:5432/dbname',
      'postgresql://a:1,b,c:3/d': 'me/-@a:1,b:5432,c:3/d',
      'postgresql://a,b/d?port=6000': 'me/-@a:6000,b:6000/d',
      'postgresql://[2001:db8::1234]:5433/d': 'me/-@2001:db8::1234:5433/d',
      'postgresql://[::1],h/d': 'me/-@::1:5432,h:5432/d',
      'postgresql://name/d?hostaddr=192.0.2.1': 'me/-@name(192.0.2.1):5432/d',
      'postgresql:///d?hostaddr=192.0.2.1,192.0.2.2&port=1,2': 'me/-@(192.0.2.1):1,(192.0.2.2):2/d',
      'postgresql:///d?host=h&user=': 'me/-@h:5432/d',
    })) {
      assert.equal(short(url), expected, url);
    }
  });

  it('takes from the environment what it lacks', () => {
    const env = {
      PGHOST: 'eh',
      PGPORT: '7',
      PGUSER: 'eu',
      PGDATABASE: 'ed',
      PGPASSWORD: 'ep',
      PGHOSTADDR: '192.0.2.9',
    };
    assert.equal(short('postgresql://', env), 'eu/ep@eh(192.0.2.9):7/ed');
    assert.equal(short('postgresql://h/', env), 'eu/ep@h(192.0.2.9):7/ed');
    assert.equal(short('postgresql://u:p@h:8/d?hostaddr=192.0.2.8', env), 'u/p@h(192.0.2.8):8/d');
    assert.equal(read('postgresql:///d', { PGSSLMODE: 'verify-full' }).sslmode, 'verify-full');
    assert.equal(read('postgresql:///d', { PGREQUIRESSL: '1' }).sslmode, 'require');
    assert.equal(read('postgresql:///d?sslmode=disable', { PGSSLMODE: 'require' }).sslmode, 'disable');
    assert.equal(read('postgresql:///d', { PGCONNECT_TIMEOUT: '1' }).connectTimeout, 2);
    for (const [seconds, expected] of [
      ['3', 3],
      ['0', undefined],
      ['-1', undefined],
      ['', undefined],
    ] as const)
      assert.equal(read('postgresql:///d', { PGCONNECT_TIMEOUT: seconds }).connectTimeout, expected, seconds);
    assert.equal(read('postgresql:///d?passfile=/x', { PGPASSFILE: '/y' }).passfile, '/x');
    assert.equal(read('postgresql:///d').passfile, '/home/me/.pgpass');
  });

  it('finds the files of TLS in the home, unless they are named', () => {
    const files = (url: string) => {
      const { sslrootcert, sslcert, sslkey } = read(url);
      return [sslrootcert, sslcert, sslkey];
    };
    assert.deepEqual(
      files('postgresql:///d'),
      ['root.crt', 'postgresql.crt', 'postgresql.key'].map((name) => `/home/me/.postgresql/${name}`),
    );
    assert.deepEqual(files('postgresql:///d?sslrootcert=/r&sslcert=/c&sslkey=/k'), ['/r', '/c', '/k']);
  });

  it("reads ssl=true as JDBC does, and knows which modes use the system's authorities", () => {
    assert.equal(read('postgresql://h/d').sslmode, 'prefer');
    assert.equal(read('postgresql://h/d?ssl=true').sslmode, 'require');
    const { sslmode, applicationName } = read('postgresql://h/d?application_name=true');
    assert.deepEqual([sslmode, applicationName], ['prefer', 'true']);
    assert.throws(() => read('postgresql://h/d?ssl=false'), /ssl is not/);
    assert.equal(read('postgresql://h/d?sslrootcert=system').sslmode, 'verify-full');
    assert.throws(() => read('postgresql://h/d?sslrootcert=system&sslmode=require'), /verify-full alone/);
  });

  it('is refused with the name of the part that is wrong or not supported, and without its value', () => {
    for (const [url, problem] of [
      ['mysql://h/d', /must start with postgresql:/],
      ['host=h dbname=d password=hunter2', /must start with postgresql:/],
      ['postgresql://u:hunter2@h/d?sslmod=require', /^sslmod is not a parameter that PostgreSQL knows$/],
      ['postgresql://u:hunter2@h/d?sslmode=hunter2', /^sslmode must be one of disable, allow/],
      ['postgresql://h/d?service=hunter2', /^service is not supported$/],
      ['postgresql://h/d?requirepeer=hunter2', /^requirepeer is not supported$/],
      ['postgresql://h/d?sslcrl=hunter2', /^sslcrl is not supported$/],
      ['postgresql://h/d?channel_binding=require', /^channel_binding has a value that is not supported$/],
      ['postgresql://h/d?gssencmode=require', /^gssencmode has a value/],
      ['postgresql://h/d?target_session_attrs=standby', /^target_session_attrs has a value/],
      ['postgresql://h/d?client_encoding=LATIN1', /^client_encoding has a value/],
      ['postgresql://h/d?connect_timeout=soon', /^connect_timeout must be/],
      ['postgresql://h:hunter2/d', /^a port must be/],
      ['postgresql://h:0/d', /^a port must be/],
      ['postgresql://h:65536/d', /^a port must be/],
      ['postgresql://a,b,c:1,2/d?port=1,2', /one port, or as many/],
      ['postgresql://a,b/d?hostaddr=192.0.2.1', /different numbers/],
      ['postgresql://a/d?hostaddr=192.0.2.1,192.0.2.2', /different numbers/],
      ['postgresql://[]/d', /IPv6 address/],
      ['postgresql://[::1]x/d', /something unexpected/],
      ['postgresql://u:hunter2%@h/d', /^the password has a %/],
      ['postgresql://u:hunter2%zz@h/d', /^the password has a %/],
      ['postgresql://u:%00hunter2@h/d', /^the password has a %/],
      ['postgresql://u:%ffhunter2@h/d', /^the password has escapes/],
      ['postgresql://h/d?application_name', /has no value/],
      ['postgresql://h/d?password=hun=ter2', /second =/],
      ['postgresql://h/d?ssl_min_protocol_version=SSLv3', /TLS version/],
    ] as const) {
      assert.throws(
        () => read(url),
        (error: Error) => {
          assert.ok(error instanceof ConninfoError, url);
          assert.match(error.message, problem, url);
          assert.doesNotMatch(error.message, /hunter2/);
          return true;
        },
      );
    }
    assert.throws(
      () => read('postgresql://h/d', { PGSERVICE: 'x' }),
      /^ConninfoError: the environment variable PGSERVICE/,
    );
    assert.throws(() => read('postgresql://h/d', { PGGSSENCMODE: 'require' }), /the environment variable PGGSSENCMODE/);
  });

  it('accepts parts that ask only for what is done anyway', () => {
    for (const query of [
      'target_session_attrs=read-write',
      'client_encoding=UTF8',
      'gssencmode=prefer',
      'keepalives=1&keepalives_idle=5&tcp_user_timeout=1000',
      'load_balance_hosts=disable',
    ]) {
      assert.equal(read(`postgresql://h/d?${query}`).database, 'd', query);
    }
  });

  it('requires a server that accepts changes only where the address says so', () => {
    const mustWrite = (query: string) => read(`postgresql://h/d${query}`).mustWrite;
    assert.deepEqual(['', '?target_session_attrs=any'].map(mustWrite), [false, false]);
    assert.deepEqual(
      ['read-write', 'primary'].map((word) => mustWrite(`?target_session_attrs=${word}`)),
      [true, true],
    );
  });
});
