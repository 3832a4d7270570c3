import { useState } from 'react'

const BERTHS = ['North quay', 'South quay', 'Fishing pier']

export default function Board() {
  const [ships, setShips] = useState(0)
  return (
    <main>
      <h1>Harbour board</h1>
      <p>
        You are looking at <code>{window.location.pathname}</code>, announced by{' '}
        <code>{import.meta.env.VITE_GREETING ?? 'nobody'}</code>.
      </p>
      <ul>
        {BERTHS.map((berth) => (
          <li key={berth}>{berth}</li>
        ))}
      </ul>
      <button type="button" onClick={() => setShips(ships + 1)}>
        Ships in port: {ships}
      </button>
    </main>
  )
}
